// needs: cuda/engine.cu cuda/guide.cu cuda/guide_sizes.cu
// needs plain: cpp/src/validate.cpp
//
// The CUDA engine over host arrays, by way of the SIMT runtime: a C interface for ctypes. Every
// call copies its arrays to device memory of exact size, runs, and copies the results back.
#include <simt/simt.hpp>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "protoseg/cuda.hpp"

namespace {

using namespace protoseg;

// The address of element 0; strides count elements.
struct HostArray {
  const void* data;
  std::int32_t dtype, rank;
  std::int64_t shape[max_rank], strides[max_rank];
};

struct CallOptions {
  std::int64_t groups;
  std::int32_t metric, interpolation, align_corners;
  double temperature;
  std::int32_t strategy, cluster, units;
  std::int64_t cache_bytes;
};

// Device memory that holds everything between an array's first and last element.
class DeviceCopy {
 public:
  DeviceCopy(const HostArray& array, const char* name) {
    view.dtype = static_cast<DType>(array.dtype);
    view.rank = array.rank;
    std::int64_t lowest = 0, highest = 0;
    for (int axis = 0; axis < array.rank; ++axis) {
      view.shape[axis] = array.shape[axis];
      view.strides[axis] = array.strides[axis];
      const std::int64_t reach = (array.shape[axis] - 1) * array.strides[axis];
      (reach < 0 ? lowest : highest) += reach;
    }
    const std::int64_t item = item_size(view.dtype);
    const auto* first = static_cast<const std::byte*>(array.data) + lowest * item;
    const auto bytes = static_cast<std::size_t>((highest - lowest + 1) * item);
    // The same misalignment as on the host.
    memory_ = simt::allocate(bytes, name, reinterpret_cast<std::uintptr_t>(first) % 16);
    simt::upload(memory_, first, bytes);
    view.data = static_cast<const std::byte*>(memory_) - lowest * item;
  }
  DeviceCopy(const DeviceCopy&) = delete;
  DeviceCopy& operator=(const DeviceCopy&) = delete;
  ~DeviceCopy() { simt::release(memory_); }

  TensorView view;

 private:
  void* memory_;
};

struct HostGuide {
  std::unique_ptr<DeviceCopy> pred, target, mask;
  std::unique_ptr<cuda::Guide> guide;
};

void* allocate(std::size_t bytes, cuda::Stream, void*) { return simt::allocate(bytes, "guide"); }
void release(void* pointer, cuda::Stream, void*) { simt::release(pointer); }

Options options_of(const CallOptions& o) {
  Options options;
  options.groups = o.groups;
  options.metric = static_cast<Metric>(o.metric);
  options.interpolation = static_cast<Interpolation>(o.interpolation);
  options.align_corners = o.align_corners != 0;
  options.temperature = o.temperature;
  return options;
}

cuda::Tuning tuning_of(const CallOptions& o) {
  cuda::Tuning tuning;
  tuning.strategy = static_cast<cuda::Strategy>(o.strategy);
  tuning.cluster = o.cluster;
  tuning.units = o.units;
  tuning.cache_bytes = o.cache_bytes;
  return tuning;
}

// Features on the device, and a workspace of just the size that was asked for.
struct DeviceCall {
  DeviceCall(const HostGuide& host, const HostArray& array, const CallOptions& o, cuda::Task task)
      : features(array, "features"), options(options_of(o)) {
    call.tuning = tuning_of(o);
    call.workspace_bytes =
        cuda::workspace_bytes(*host.guide, features.view, options, task, call.tuning);
    if (call.workspace_bytes > 0)
      call.workspace = simt::allocate(call.workspace_bytes, "workspace");
  }
  ~DeviceCall() {
    if (call.workspace != nullptr) simt::release(call.workspace);
  }
  DeviceCopy features;
  Options options;
  cuda::Call call;
};

// Runs f; 0 is success, 1 a value error, 2 a type error, 3 a fault found by the runtime.
template <class F>
int guarded(char* message, std::size_t size, F f) {
  const auto report = [&](const char* what, int code) {
    std::strncpy(message, what, size - 1);
    message[size - 1] = '\0';
    return code;
  };
  try {
    f();
    return 0;
  } catch (const Error& error) {
    return report(error.what(), error.kind() == Error::Kind::type ? 2 : 1);
  } catch (const std::exception& error) {
    return report(error.what(), 3);
  }
}

template <class T>
void download(const simt::DeviceArray<T>& from, T* to) {
  simt::download(to, from.data(), from.size() * sizeof(T));
}

struct CountsOnDevice {
  CountsOnDevice(std::size_t pairs, std::size_t images)
      : tp(pairs, "tp"),
        predicted(pairs, "predicted"),
        actual(pairs, "actual"),
        voxels(images, "voxels"),
        defined(pairs, "defined"),
        arrays{tp.data(), predicted.data(), actual.data(), voxels.data(), defined.data()} {}
  simt::DeviceArray<std::int64_t> tp, predicted, actual, voxels;
  simt::DeviceArray<std::uint8_t> defined;
  cuda::CountArrays arrays;
};

std::size_t pairs_of(const HostGuide& host, const CallOptions& o) {
  return static_cast<std::size_t>(host.guide->images() * o.groups * host.guide->targets());
}

std::size_t map_size(const HostGuide& host, const CallOptions& o) {
  std::size_t voxels = 1;
  for (const std::int64_t extent : host.guide->size()) voxels *= static_cast<std::size_t>(extent);
  return pairs_of(host, o) * voxels;
}

}  // namespace

extern "C" {

int simt_guide(const HostArray* pred, const HostArray* target, const HostArray* mask,
               const double* binarize, HostGuide** result, char* message, std::size_t size) {
  return guarded(message, size, [&] {
    auto host = std::make_unique<HostGuide>();
    host->pred = std::make_unique<DeviceCopy>(*pred, "pred");
    if (target != nullptr) host->target = std::make_unique<DeviceCopy>(*target, "target");
    if (mask != nullptr) host->mask = std::make_unique<DeviceCopy>(*mask, "mask");
    std::optional<double> threshold;
    if (binarize != nullptr) threshold = *binarize;
    host->guide = std::make_unique<cuda::Guide>(
        host->pred->view, target != nullptr ? &host->target->view : nullptr,
        mask != nullptr ? &host->mask->view : nullptr, threshold,
        cuda::Allocator{allocate, release, nullptr}, nullptr);
    *result = host.release();
  });
}

void simt_guide_free(HostGuide* host) { delete host; }

int simt_check(const HostGuide* host, char* message, std::size_t size) {
  return guarded(message, size, [&] { host->guide->check(nullptr); });
}

// counts: tp, predicted, actual [N, G, T], voxels [N]; defined [N, G, T]; of the target, of the
// output. Null: not asked for.
int simt_sa_counts(const HostGuide* host, const HostArray* features, const CallOptions* o,
                   std::int64_t* const target[4], std::uint8_t* target_defined,
                   std::int64_t* const output[4], std::uint8_t* output_defined, char* message,
                   std::size_t size) {
  return guarded(message, size, [&] {
    DeviceCall device(*host, *features, *o, cuda::Task::sa_counts);
    const auto images = static_cast<std::size_t>(host->guide->images());
    std::unique_ptr<CountsOnDevice> counts[2];
    const cuda::CountArrays* arrays[2] = {};
    for (int which = 0; which < 2; ++which) {
      if ((which == 0 ? target : output) == nullptr) continue;
      counts[which] = std::make_unique<CountsOnDevice>(pairs_of(*host, *o), images);
      arrays[which] = &counts[which]->arrays;
    }
    cuda::sa_counts(*host->guide, device.features.view, device.options, arrays[0], arrays[1],
                    device.call);
    for (int which = 0; which < 2; ++which) {
      std::int64_t* const* to = which == 0 ? target : output;
      if (to == nullptr) continue;
      download(counts[which]->tp, to[0]);
      download(counts[which]->predicted, to[1]);
      download(counts[which]->actual, to[2]);
      download(counts[which]->voxels, to[3]);
      download(counts[which]->defined, which == 0 ? target_defined : output_defined);
    }
  });
}

// mean [N, T, C], weight [N, T]
int simt_prototypes(const HostGuide* host, const HostArray* features, const CallOptions* o,
                    double* const out[4], char* message, std::size_t size) {
  return guarded(message, size, [&] {
    DeviceCall device(*host, *features, *o, cuda::Task::prototypes);
    const auto planes = static_cast<std::size_t>(host->guide->images() * host->guide->targets());
    const std::size_t means = planes * static_cast<std::size_t>(features->shape[1]);
    const simt::DeviceArray<double> positive(means, "positive"), negative(means, "negative"),
        positive_weight(planes, "positive_weight"), negative_weight(planes, "negative_weight");
    cuda::prototypes(
        *host->guide, device.features.view, device.options,
        {positive.data(), negative.data(), positive_weight.data(), negative_weight.data()},
        device.call);
    download(positive, out[0]);
    download(negative, out[1]);
    download(positive_weight, out[2]);
    download(negative_weight, out[3]);
  });
}

int simt_segment(const HostGuide* host, const HostArray* features, const CallOptions* o,
                 std::uint8_t* map, char* message, std::size_t size) {
  return guarded(message, size, [&] {
    DeviceCall device(*host, *features, *o, cuda::Task::segment);
    const simt::DeviceArray<std::uint8_t> out(map_size(*host, *o), "map");
    cuda::segment(*host->guide, device.features.view, device.options, out.data(), device.call);
    download(out, map);
  });
}

int simt_probability(const HostGuide* host, const HostArray* features, const CallOptions* o,
                     void* probability, int wide, char* message, std::size_t size) {
  return guarded(message, size, [&] {
    DeviceCall device(*host, *features, *o, cuda::Task::probability);
    const auto write = [&](auto* to) {
      using Out = std::remove_pointer_t<decltype(to)>;
      const simt::DeviceArray<Out> out(map_size(*host, *o), "map");
      cuda::probability(*host->guide, device.features.view, device.options, out.data(),
                        device.call);
      download(out, to);
    };
    if (wide != 0)
      write(static_cast<double*>(probability));
    else
      write(static_cast<float*>(probability));
  });
}

// Traffic since the last call of simt_clear, as JSON: one line per launch.
void simt_clear() { simt::clear_launches(); }
std::size_t simt_traffic(char* text, std::size_t size) {
  std::string lines;
  for (const simt::Traffic& launch : simt::launches()) lines += launch.json() + "\n";
  if (text != nullptr && size > 0) {
    std::strncpy(text, lines.c_str(), size - 1);
    text[size - 1] = '\0';
  }
  return lines.size() + 1;
}

void simt_seed(std::uint64_t seed) { simt::options().seed = seed; }
void simt_seconds(double seconds) { simt::options().seconds = seconds; }
void simt_device(int major, int multiprocessors, int cache_bytes, int shared_bytes) {
  simt::device().major = major;
  simt::device().multiprocessors = multiprocessors;
  simt::device().l2_bytes = cache_bytes;
  simt::device().shared_bytes = shared_bytes;
}
}
