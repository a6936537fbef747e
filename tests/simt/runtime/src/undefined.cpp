// Where -fsanitize=undefined arrives. Every report begins with its place in the source.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "machine.hpp"

namespace {

struct Source {
  const char* file;
  std::uint32_t line, column;
};

[[noreturn]] void undefined(const void* data, const char* what) {
  const auto* source = static_cast<const Source*>(data);
  std::string file = source->file ? source->file : "?";
  file = file.substr(file.rfind('/') + 1);
  const std::string message = std::string("undefined behaviour: ") + what + " at " + file + ":" +
                              simt::number(source->line) + ":" + simt::number(source->column);
  if (simt::current) simt::fail(message);
  std::fprintf(stderr, "simt: on the host, %s\n", message.c_str());
  std::abort();
}

}  // namespace

#define SIMT_UNDEFINED(name, what) \
  extern "C" void __ubsan_handle_##name##_abort(void* data) { undefined(data, what); }
SIMT_UNDEFINED(add_overflow, "an addition of signed integers overflows")
SIMT_UNDEFINED(sub_overflow, "a subtraction of signed integers overflows")
SIMT_UNDEFINED(mul_overflow, "a product of signed integers overflows")
SIMT_UNDEFINED(negate_overflow, "a negation overflows")
SIMT_UNDEFINED(divrem_overflow, "a division by zero, or one that overflows")
SIMT_UNDEFINED(shift_out_of_bounds, "a shift by a negative or too large number")
SIMT_UNDEFINED(out_of_bounds, "an index beyond the array")
SIMT_UNDEFINED(vla_bound_not_positive, "an array of no positive length")
SIMT_UNDEFINED(load_invalid_value, "a value that its type does not have")
SIMT_UNDEFINED(float_cast_overflow, "a float that its integer type cannot hold")
SIMT_UNDEFINED(nonnull_arg, "a null pointer as an argument that must not be null")
SIMT_UNDEFINED(type_mismatch_v1, "a pointer that is null or misaligned for its type")
SIMT_UNDEFINED(pointer_overflow, "pointer arithmetic overflows")
SIMT_UNDEFINED(invalid_builtin, "a builtin with an argument it does not take")
#undef SIMT_UNDEFINED
extern "C" void __ubsan_handle_builtin_unreachable(void* data) {
  undefined(data, "unreachable code is reached");
}
extern "C" void __ubsan_handle_missing_return(void* data) {
  undefined(data, "a function ends without returning its value");
}
