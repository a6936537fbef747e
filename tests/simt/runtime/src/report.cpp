// Traffic as numbers to compare and as JSON for Python.
#include "simt/simt.hpp"

namespace simt {

namespace {

void add(GlobalTraffic& sum, const GlobalTraffic& more) {
  sum.requests += more.requests;
  sum.bytes += more.bytes;
  sum.sectors += more.sectors;
  sum.unique_sectors += more.unique_sectors;
}

void add(SharedTraffic& sum, const SharedTraffic& more) {
  sum.requests += more.requests;
  sum.wavefronts += more.wavefronts;
  sum.conflicts += more.conflicts;
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + "\"";
}

std::string field(const char* name, std::uint64_t value) {
  return quoted(name) + ": " + std::to_string(value);
}

std::string json_of(const GlobalTraffic& t) {
  return "{" + field("requests", t.requests) + ", " + field("bytes", t.bytes) + ", " +
         field("sectors", t.sectors) + ", " + field("unique_sectors", t.unique_sectors) + "}";
}

std::string json_of(const SharedTraffic& t) {
  return "{" + field("requests", t.requests) + ", " + field("wavefronts", t.wavefronts) + ", " +
         field("conflicts", t.conflicts) + "}";
}

std::string json_of(const std::map<std::string, GlobalTraffic>& by_name) {
  std::string text = "{";
  for (const auto& [name, traffic] : by_name)
    text += (text.size() > 1 ? ", " : "") + quoted(name) + ": " + json_of(traffic);
  return text + "}";
}

GlobalTraffic at(const std::map<std::string, GlobalTraffic>& by_name, const std::string& name) {
  const auto found = by_name.find(name);
  return found == by_name.end() ? GlobalTraffic{} : found->second;
}

}  // namespace

Traffic& Traffic::operator+=(const Traffic& other) {
  launches += other.launches;
  blocks += other.blocks;
  threads += other.threads;
  barriers += other.barriers;
  cluster_barriers += other.cluster_barriers;
  warp_barriers += other.warp_barriers;
  shuffles += other.shuffles;
  global_atomics += other.global_atomics;
  shared_atomics += other.shared_atomics;
  for (const auto& [name, traffic] : other.reads) add(reads[name], traffic);
  for (const auto& [name, traffic] : other.writes) add(writes[name], traffic);
  add(shared_reads, other.shared_reads);
  add(shared_writes, other.shared_writes);
  return *this;
}

GlobalTraffic Traffic::read(const std::string& name) const { return at(reads, name); }
GlobalTraffic Traffic::written(const std::string& name) const { return at(writes, name); }

std::string Traffic::json() const {
  return "{" + quoted("kernel") + ": " + quoted(kernel) + ", " + field("launches", launches) +
         ", " + field("blocks", blocks) + ", " + field("threads", threads) + ", " +
         field("barriers", barriers) + ", " + field("cluster_barriers", cluster_barriers) + ", " +
         field("warp_barriers", warp_barriers) + ", " + field("shuffles", shuffles) + ", " +
         field("global_atomics", global_atomics) + ", " + field("shared_atomics", shared_atomics) +
         ", " + quoted("reads") + ": " + json_of(reads) + ", " + quoted("writes") + ": " +
         json_of(writes) + ", " + quoted("shared_reads") + ": " + json_of(shared_reads) + ", " +
         quoted("shared_writes") + ": " + json_of(shared_writes) + "}";
}

}  // namespace simt
