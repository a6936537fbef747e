// The last of a great many images of a guide, and of planes that are resized.
#include "guide_cells.cuh"
#include "guide_weights.cuh"
#include "huge.hpp"
#include "resize_map.cuh"

using namespace huge;

SIMT_SCENARIO(first_look_at_the_last_image) {
  constexpr std::int64_t images = planes, voxels = 100, words = 4, last = images - 1;
  const Zeros<float> pred(images * voxels, "pred");
  pred.set(last * voxels, {0.25f, 0.75f, 1.0f});
  const Zeros<unsigned> valid(images * words, "valid"), output(images * words, "output bits");
  const Zeros<std::int64_t> voxel_count(images, "voxels"), count(images, "in output");
  const Zeros<unsigned long long> largest(images * 2, "largest");
  const Zeros<Findings> findings(1, "findings");
  ScanParams p{};
  p.pred = rows_of(pred.data(), 1, voxels);
  p.images = images;
  p.targets = 1;
  p.words = p.piece_words = words;
  p.valid = valid.data();
  p.actual[0] = p.actual[1] = output.data();
  p.voxel_count = voxel_count.data();
  p.actual_count[0] = p.actual_count[1] = count.data();
  p.largest = largest.data();
  p.findings = findings.data();
  last_block(images / warps);
  start(scan_kernel<>, images / warps, p);
  SIMT_EXPECT_EQUAL(valid.get(last * words), 0xffffffffu);
  SIMT_EXPECT_EQUAL(valid.get(last * words + 3), 0xfu);
  SIMT_EXPECT_EQUAL(output.get(last * words), 6u);
  SIMT_EXPECT_EQUAL(voxel_count.get(last), 100);
  SIMT_EXPECT_EQUAL(count.get(last), 2);
  SIMT_EXPECT_EQUAL(from_ordered(largest.get(2 * last)), 1.0);

  WeightsParams<float> w{};
  const Zeros<float> out(images * 2 * 104, "weights");
  const Zeros<double> scale(images * 2, "scale"), partial(images * 2, "partial"),
      total(images * 2, "totals");
  w.guiding = {p.pred, p.pred, false, false, 0.0, 1};
  w.planes = images;
  w.voxels = voxels;
  w.segments = 1;
  w.largest = largest.data();
  w.most_exponent = 1023;
  w.out = out.data();
  w.pitch = 104;
  w.scale = scale.data();
  w.partial = partial.data();
  last_block(images * 2);
  start(weights_kernel<float>, images * 2, w);
  const double scaled = scale.get(2 * last + 1);
  SIMT_EXPECT_EQUAL(out.get((2 * last + 1) * 104), static_cast<float>(0.75 * scaled));
  SIMT_EXPECT_EQUAL(partial.get(2 * last + 1), 98.0 * scaled);
  TotalsParams t{};
  t.partial = partial.data();
  t.rows = images * 2;
  t.segments = 1;
  t.total = total.data();
  t.findings = findings.data();
  t.limits = {false, 1.0};
  last_block(images * 2 / threads);
  start(totals_kernel<>, images * 2 / threads, t);
  SIMT_EXPECT_EQUAL(total.get(2 * last + 1), 98.0 * scaled);
}

SIMT_SCENARIO(adjoint_of_the_last_rows) {
  constexpr std::int64_t rows = planes, n = 64, last = rows - 1;
  // Twice as many outputs as inputs, nearest: each reads one.
  std::vector<int> lower, begin;
  for (int o = 0; o < n; ++o) lower.push_back(o / 2);
  for (int k = 0; k <= n / 2; ++k) begin.push_back(2 * k);
  const simt::DeviceArray<int> l(lower, "lower"), b(begin, "begin");
  const simt::DeviceArray<double> exact(std::vector<double>(n, 0.0), "exact");
  const AxisTaps axis = {l.data(), l.data(), nullptr, exact.data(), b.data()};
  const Zeros<double> in(rows * n, "in"), out(rows * n / 2, "out");
  in.set(last * n + n - 2, {3.0, 4.0});
  AdjointAxisParams p{};
  p.axis = axis;
  p.outer = rows;
  p.n_out = n;
  p.n_in = n / 2;
  p.inner = 1;
  p.in = in.data();
  p.out = out.data();
  last_block(rows * n / 2 / threads);
  start(adjoint_axis_kernel<>, rows * n / 2 / threads, p);
  SIMT_EXPECT_EQUAL(out.get(rows * n / 2 - 1), 7.0);

  const Zeros<float> pred(rows / 2 * n, "pred");
  pred.set((rows / 2 - 1) * n + n - 2, {0.25f, 0.5f});
  AdjointRowsParams r{};
  const Tensor tensor = rows_of(pred.data(), 1, n);
  r.guiding = {tensor, tensor, false, false, 0.0, 1};
  r.cells.x = axis;
  r.cells.from.x = n / 2;
  r.cells.to.x = n;
  r.planes = rows / 2;
  r.out = out.data();
  start(adjoint_rows_kernel<>, rows * n / 2 / threads, r);
  SIMT_EXPECT_EQUAL(out.get(rows * n / 2 - 1), 1.25);

  const Zeros<unsigned long long> largest(rows, "largest");
  LargestParams m{};
  m.weight = in.data();
  m.rows = rows;
  m.voxels = n;
  m.segments = 1;
  m.largest = largest.data();
  last_block(rows);
  start(largest_kernel<>, rows, m);
  SIMT_EXPECT_EQUAL(from_ordered(largest.get(last)), 4.0);
}

SIMT_SCENARIO(resized_to_the_last_plane) {
  constexpr std::int64_t units = 2 * planes, from = 32, to = 64, last = units - 1;
  std::vector<int> lower, begin;
  for (int o = 0; o < to; ++o) lower.push_back(o / 2);
  for (int k = 0; k <= from; ++k) begin.push_back(2 * k);
  const simt::DeviceArray<int> l(lower, "lower"), b(begin, "begin"),
      one(std::vector<int>{0}, "lower of one"), ends(std::vector<int>{0, 1}, "begin of one");
  const simt::DeviceArray<float> weight(std::vector<float>(to, 0.0f), "weight");
  const simt::DeviceArray<double> exact(std::vector<double>(to, 0.0), "exact");
  const Zeros<unsigned> packed(units * 2, "packed"), rows(units * 2, "rows of tiles"),
      total(units * 2, "totals of tiles");
  packed.set(last * 2, {0u, 0xff000000u});
  Cells cells;
  cells.resized = true;
  cells.from = line_of(from);
  cells.to = line_of(to);
  cells.z = cells.y = {one.data(), one.data(), weight.data(), exact.data(), ends.data()};
  cells.x = {l.data(), l.data(), weight.data(), exact.data(), b.data()};
  cells.words = 2;
  cells.lines = 1;
  TileBitsParams bits{};
  bits.cells = cells;
  bits.packed = packed.data();
  bits.planes = units;
  bits.words = 2;
  bits.rows = rows.data();
  last_block(units * 2 / threads);
  start(tile_bits_kernel<>, units * 2 / threads, bits);
  SIMT_EXPECT_EQUAL(rows.get(2 * last + 1), 0xff000000u);
  TileTotalsParams totals{};
  totals.cells = cells;
  totals.rows = rows.data();
  totals.planes = units;
  totals.total = total.data();
  last_block(units * 2 / warps);
  start(tile_totals_kernel<>, units * 2 / warps, totals);
  SIMT_EXPECT_EQUAL(total.get(2 * last + 1), 8u);

  // Images of one unit each, the last of which is 1 at its end and 0 elsewhere.
  const Zeros<float> features(units * 40, "features");
  features.set(last * 40 + from - 1, {1.0f});
  cells.valid = rows.data();
  cells.valid_total = total.data();
  const HugeCounts counts(units);
  cells.actual[0] = rows.data();
  cells.actual_total[0] = total.data();
  const Zeros<UnitThreshold<double>> threshold(units, "thresholds");
  threshold.set(last, {{true, true, 0.5}});
  ResizedCountsParams p{};
  p.values = rows_of(features.data(), 1, from);
  p.values.image_stride = 40;
  p.count = units;
  p.part_tiles = 2;
  p.threshold = threshold.data();
  p.cells = cells;
  p.out = counts.out;
  last_block(units);
  start(resized_counts_kernel<float>, units, p);
  SIMT_EXPECT_EQUAL(counts.predicted.get(last), 2);
  SIMT_EXPECT_EQUAL(counts.tp.get(last), 2);

  const Zeros<double> projection(units * from, "projections");
  projection.set(last * from + from - 1, {1.0});
  const Zeros<Boundary> boundary(units, "boundaries");
  boundary.set(last, {{0.5, 2.0, true}});
  const Zeros<std::uint8_t> map(units * to, "map");
  ResizeMapParams m{};
  m.projection = projection.data();
  m.count = units;
  m.group_channels = m.targets = 1;
  m.voxels = to;
  m.boundary = boundary.data();
  m.cells = cells;
  m.features = p.values;
  m.sink = Sink::map;
  m.map = map.data();
  last_block(units * to / threads);
  start(resize_map_kernel<>, units * to / threads, m);
  SIMT_EXPECT_EQUAL(map.get(units * to - 1) + map.get(units * to - 2), 2);
  SIMT_EXPECT_EQUAL(map.get(units * to - 3), 0);
}
