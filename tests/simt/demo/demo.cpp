#include "demo.cuh"

#include <simt/scenario.hpp>

#include "launch.cuh"

SIMT_SCENARIO(sums) {
  const std::size_t rows = 3, length = 101;
  std::vector<float> values(rows * length);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 13);
  simt::DeviceArray<float> features(values, "values");
  simt::DeviceArray<double> sums(rows, "sums");
  protoseg::cuda::launch(demo::row_sums, {rows, 96}, nullptr,
                         {features.data(), sums.data(), static_cast<int>(length)});
  const std::vector<double> result = sums.download();
  for (std::size_t row = 0; row < rows; ++row) {
    double expected = 0.0;
    for (std::size_t i = 0; i < length; ++i) expected += values[row * length + i];
    SIMT_EXPECT_EQUAL(result[row], expected);
  }
}
