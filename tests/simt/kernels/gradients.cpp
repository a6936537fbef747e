// needs: cuda/engine.cu cuda/gradients.cu cuda/guide.cu cuda/guide_sizes.cu
// needs plain: cpp/src/*.cpp -DPROTOSEG_ISA=baseline -DPROTOSEG_VERSION="" -DPROTOSEG_BUILD_TYPE=""
//
// Gradients of both metrics, of all dtypes, sizes and strides, against the CPU's.
#include "gradients.hpp"

using namespace gradients;

// ---- same size ---------------------------------------------------------------------------------

SIMT_SCENARIO(a_layer) {
  check<float>(same_size({36, 40}, 1, 7, 1, euclidean));  // the gradient itself serves as the map
  check<float>(same_size({19, 23}, 1, 7, 1, euclidean));  // it does not
  check<double>(same_size({7, 11}, 1, 5, 1, euclidean));
}
SIMT_SCENARIO(groups_and_targets) {
  check<float>(same_size({1100}, 3, 2, 2, euclidean));
  check<float>(same_size({13, 9}, 2, 9, 3, euclidean));
  check<double>(same_size({3, 5, 7}, 2, 2, 4, euclidean));
}
SIMT_SCENARIO(units) {
  check<float>(same_size({16, 12}, 9, 1, 1, euclidean));
  check<float>(same_size({15, 11}, 6, 1, 2, euclidean));
  check<float>(same_size({15, 11}, 6, 1, 2, cosine));  // a step function: zeros
}
SIMT_SCENARIO(a_layer_of_cosine) {
  check<float>(same_size({36, 40}, 1, 7, 1, cosine));
  check<float>(same_size({19, 23}, 1, 12, 3, cosine));
  check<double>(same_size({3, 5, 7}, 2, 3, 2, cosine));
}
SIMT_SCENARIO(several_segments) {
  check<float>(same_size({8192 * 2 + 77}, 1, 3, 1, euclidean));
  check<float>(same_size({8192 + 3}, 1, 2, 2, cosine));
}
SIMT_SCENARIO(halves) {
  check<Half>(same_size({19, 23}, 1, 18, 1, euclidean));
  check<Half>(same_size({16, 24}, 2, 5, 2, cosine));
  check<Bfloat>(same_size({19, 23}, 1, 18, 1, cosine));
  check<Bfloat>(resized({7, 9}, {13, 11}, 1, 6, 1, cosine));
}
SIMT_SCENARIO(misaligned) {
  for (int by = 1; by < 4; ++by) {
    Case c = same_size({16, 20}, 2, 3, 2, by == 2 ? cosine : euclidean);
    c.misalignment = by;
    check<float>(c);
    check<Half>(c);
  }
}
SIMT_SCENARIO(channels_last) {
  for (const Metric metric : {euclidean, cosine}) {
    Case c = same_size({19, 23}, 1, 21, 1, metric);
    c.order = Order::channels_last;
    check<float>(c);
    c.groups = 3;
    c.group_channels = 4;
    c.targets = 3;
    check<float>(c);
    check<Half>(c);
  }
}
SIMT_SCENARIO(any_strides) {
  for (const Metric metric : {euclidean, cosine}) {
    Case c = same_size({3, 9, 7}, 2, 5, 2, metric);
    c.order = Order::backwards_axes;
    check<float>(c);
    check<double>(c);
  }
}
SIMT_SCENARIO(in_chunks) {
  for (const Metric metric : {euclidean, cosine})
    for (const std::int64_t groups_at_once : {1, 2, 4, 9}) {
      Case c = same_size({16, 12}, 4, 3, 2, metric);
      c.images = 3;
      c.cache_bytes = 2 * groups_at_once * 3 * 16 * 12 * 4;
      check<float>(c);
      c.order = Order::channels_last;
      check<float>(c);
    }
}
SIMT_SCENARIO(only_what_is_asked_for) {
  for (const bool apart : {false, true})
    for (const Metric metric : {euclidean, cosine})
      for (int which = 0; which < 3; ++which) {
        Case c = same_size({9, 20}, 2, 3, 2, metric);
        if (apart) c.feature_size = {5, 8};
        for (int i = 0; i < 3; ++i) c.wanted[i] = i == which;
        check<float>(c);
      }
}
SIMT_SCENARIO(without_a_mask) {
  for (const Metric metric : {euclidean, cosine}) {
    Case c = same_size({16, 20}, 2, 3, 2, metric);
    c.masked = false;  // pred itself serves as the weights
    check<float>(c);
    c.binarize = 0.5;
    check<float>(c);
  }
}

// ---- resized -----------------------------------------------------------------------------------

SIMT_SCENARIO(upsampled) {
  for (const Metric metric : {euclidean, cosine}) {
    check<float>(resized({17}, {50}, 1, 3, 1, metric));
    check<float>(resized({6, 7}, {13, 15}, 2, 4, 3, metric));
    check<double>(resized({2, 3, 5}, {5, 7, 11}, 2, 3, 2, metric));
  }
}
SIMT_SCENARIO(resized_groups_at_once) {  // with as many channels their maps are small beside them
  for (const Metric metric : {euclidean, cosine})
    check<float>(resized({6, 7}, {7, 8}, 2, 96, 1, metric));
}
SIMT_SCENARIO(resized_of_several_pieces) {
  check<float>(resized({19, 23}, {21, 30}, 1, 3, 1, cosine));
}
SIMT_SCENARIO(downsampled) {
  for (const Metric metric : {euclidean, cosine}) {
    check<float>(resized({50}, {17}, 1, 3, 1, metric));
    check<double>(resized({4, 9, 6}, {3, 4, 6}, 2, 3, 2, metric));
    check<float>(resized({9, 5}, {4, 12}, 1, 4, 2, metric));
  }
}
SIMT_SCENARIO(other_interpolations) {
  for (const Metric metric : {euclidean, cosine}) {
    Case c = resized({5, 8}, {12, 9}, 2, 3, 2, metric);
    c.align_corners = true;
    check<double>(c);
    c.align_corners = false;
    c.interpolation = Interpolation::nearest;
    check<double>(c);
    c.feature_size = {12, 9};
    c.size = {5, 8};
    check<double>(c);
  }
}
SIMT_SCENARIO(resized_of_any_strides) {
  for (const Metric metric : {euclidean, cosine})
    for (const Order order : {Order::channels_last, Order::backwards_axes}) {
      Case c = resized({5, 6}, {12, 10}, 2, 9, 2, metric);
      c.order = order;
      c.cache_bytes = 1;  // one group at a time
      check<float>(c);
    }
}
