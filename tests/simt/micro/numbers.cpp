// Conversions and bit functions against other definitions of them.
#include "micro.hpp"

namespace {

// By value: sign, exponent and fraction of any float as IEEE has them.
double value_of(unsigned bits, int fraction_bits, int exponent_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const unsigned fraction = bits & ((1u << fraction_bits) - 1);
  const int exponent = static_cast<int>(bits >> fraction_bits & ((1u << exponent_bits) - 1));
  const double sign = bits >> (fraction_bits + exponent_bits) ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) return fraction ? std::nan("") : sign * HUGE_VAL;
  const double whole = exponent ? 1.0 : 0.0;
  return sign *
         std::ldexp(whole + std::ldexp(fraction, -fraction_bits), (exponent ? exponent : 1) - bias);
}

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

}  // namespace

SIMT_SCENARIO(every_half_and_bfloat16) {
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const auto b = static_cast<unsigned short>(bits);
    const float h = __half2float(__ushort_as_half(b)),
                f = __bfloat162float(__ushort_as_bfloat16(b));
    SIMT_EXPECT(same(h, value_of(bits, 10, 5)));
    SIMT_EXPECT(same(f, value_of(bits, 7, 8)));
    if (std::isnan(h)) continue;
    SIMT_EXPECT_EQUAL(__half_as_ushort(__float2half(h)), b);
    // Between two halves the nearer one; in the middle the even one.
    const float next = __half2float(__ushort_as_half(static_cast<unsigned short>(b + 1)));
    if (std::isnan(next) || std::isinf(next) || std::isinf(h)) continue;
    const float middle = h / 2 + next / 2;
    SIMT_EXPECT_EQUAL(__half_as_ushort(__float2half(middle)), b + (b & 1));
    SIMT_EXPECT_EQUAL(__half_as_ushort(__float2half(std::nextafter(middle, h))), b);
    SIMT_EXPECT_EQUAL(__half_as_ushort(__float2half(std::nextafter(middle, next))), b + 1);
  }
  SIMT_EXPECT_EQUAL(__half_as_ushort(__float2half(65520.0f)), 0x7c00);
  SIMT_EXPECT_EQUAL(__half_as_ushort(__float2half(65519.0f)), 0x7bff);
  SIMT_EXPECT_EQUAL(__bfloat16_as_ushort(__float2bfloat16(1.00390625f)), 0x3f80);
  SIMT_EXPECT_EQUAL(__bfloat16_as_ushort(__float2bfloat16(1.01171875f)), 0x3f82);
}

SIMT_SCENARIO(bits) {
  SIMT_EXPECT_EQUAL(__popc(0xf0f0u), 8);
  SIMT_EXPECT_EQUAL(__popcll(~0ull), 64);
  SIMT_EXPECT_EQUAL(__ffs(0), 0);
  SIMT_EXPECT_EQUAL(__ffs(8), 4);
  SIMT_EXPECT_EQUAL(__clz(1), 31);
  SIMT_EXPECT_EQUAL(__clz(0), 32);
  SIMT_EXPECT_EQUAL(__brev(1u), 0x80000000u);
  SIMT_EXPECT_EQUAL(__umulhi(0x80000000u, 6u), 3u);
  SIMT_EXPECT_EQUAL(__funnelshift_r(0x11111111u, 0x22222222u, 4), 0x21111111u);
  SIMT_EXPECT_EQUAL(__funnelshift_l(0x11111111u, 0x22222222u, 4), 0x22222221u);
}
