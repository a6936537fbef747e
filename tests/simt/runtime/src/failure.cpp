// Messages: what, where in the grid, where in the source, with which seed.
#include <cxxabi.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <map>

#include "machine.hpp"

namespace simt {

namespace {

std::string pending;  // raised on a fiber, thrown by the host

std::string triple(const uint3& i) {
  return "(" + number(i.x) + "," + number(i.y) + "," + number(i.z) + ")";
}

std::string context(const Thread* thread, const void* code) {
  std::string text;
  if (active) {
    text += "\n  kernel " + function_name(active->kernel);
    if (thread) text += ", " + describe(*thread->block, *thread);
    const std::string line = code ? source_line(code) : "";
    if (!line.empty()) text += "\n  at " + line;
    text += "\n  seed " + number(active->seed);
  }
  return text;
}

std::string run_addr2line(const void* address, std::uintptr_t minus) {
  Dl_info info;
  if (!dladdr(address, &info) || !info.dli_fname) return "";
  const std::uintptr_t offset = reinterpret_cast<std::uintptr_t>(address) -
                                reinterpret_cast<std::uintptr_t>(info.dli_fbase) - minus;
  char command[1200];
  std::snprintf(command, sizeof command, "addr2line -Cfie '%s' %#zx 2>/dev/null", info.dli_fname,
                static_cast<std::size_t>(offset));
  std::string output;
  if (FILE* pipe = popen(command, "r")) {
    char line[1024];
    while (std::fgets(line, sizeof line, pipe)) output += line;
    pclose(pipe);
  }
  return output;
}

std::string base_name(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

}  // namespace

std::string number(std::uint64_t n) { return std::to_string(n); }

std::string describe(const Block& block, const Thread& thread) {
  return "block " + triple(block.index) + ", thread " + triple(thread.index) + " (warp " +
         number(thread.warp->number) + ", lane " + number(thread.lane) + ")";
}

std::string where(const Place& place) {
  return std::string(place.operation) + " (" + base_name(place.file) + ":" + number(place.line) +
         ")";
}

// The innermost line outside the runtime's own headers.
std::string source_line(const void* code) {
  static std::map<const void*, std::string> known;
  const auto found = known.find(code);
  if (found != known.end()) return found->second;
  const std::string output = run_addr2line(code, 1);
  std::string line;
  for (std::size_t at = 0; at < output.size();) {
    const std::size_t middle = output.find('\n', at);  // a line with the function, one with file
    if (middle == std::string::npos) break;
    const std::size_t end = output.find('\n', middle + 1);
    std::string position = output.substr(middle + 1, end - middle - 1);
    position = position.substr(0, position.find(" (discriminator"));
    const bool own = position.find("/include/simt/") != std::string::npos;
    if (position.find("??") == std::string::npos && !own) {
      line = base_name(position);
      break;
    }
    if (end == std::string::npos) break;
    at = end + 1;
  }
  return known[code] = line;
}

std::string function_name(const void* function) {
  static std::map<const void*, std::string> known;
  const auto found = known.find(function);
  if (found != known.end()) return found->second;
  std::string name;
  Dl_info info;
  if (dladdr(function, &info) && info.dli_sname && info.dli_saddr == function) {
    int status = 1;
    char* demangled = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
    name = status == 0 ? demangled : info.dli_sname;
    std::free(demangled);
  } else {
    const std::string output = run_addr2line(function, 0);
    name = output.substr(0, output.find('\n'));
  }
  if (name.rfind("void ", 0) == 0) name = name.substr(5);
  // Without the parameters: from the parenthesis that closes last, back to its partner.
  if (!name.empty() && name.back() == ')') {
    std::size_t at = name.size();
    int depth = 0;
    do {
      --at;
      depth += name[at] == ')' ? 1 : name[at] == '(' ? -1 : 0;
    } while (at > 0 && depth > 0);
    if (at > 0) name.resize(at);
  }
  if (name.empty()) name = "?";
  return known[function] = name;
}

void fail_at(const Thread& thread, const std::string& message, const void* code) {
  if (!current) throw Failure("simt: " + message + context(&thread, code));
  pending = "simt: " + message + context(&thread, code);
  Context& own = current->context;
  current = nullptr;
  switch_context(own, active->host);  // the fibers are abandoned as they are
  __builtin_unreachable();
}

void fail(const std::string& message, const void* code) {
  if (current) fail_at(*current, message, code);
  throw Failure("simt: " + message + context(nullptr, code));
}

void throw_pending_failure() {
  if (pending.empty()) return;
  const std::string message = std::move(pending);
  pending.clear();
  throw Failure(message);
}

}  // namespace simt
