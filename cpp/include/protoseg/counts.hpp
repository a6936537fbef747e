// Confusion counts, and the scores made from them. A new score is one case in `score`.
#pragma once

#include <cmath>
#include <cstdint>

#include "protoseg/dtype.hpp"

namespace protoseg {

// Voxels with mask > 0 of one group and target: S is the map (margin > 0), G the target.
struct Counts {
  std::int64_t tp = 0;         // |S and G|
  std::int64_t predicted = 0;  // |S|
  std::int64_t actual = 0;     // |G|
  std::int64_t voxels = 0;     // voxels with mask > 0
  bool defined = true;         // false: a prototype is undefined or a feature is not finite
};

enum class Score : std::int32_t { dice, iou, precision, recall };

// What an overlap score is worth when S or G is empty (peers disagree, so the caller names it):
//                 nan   monai  one  zero
//   both empty    NaN   NaN    1    0
//   only G empty  0     NaN    0    0
//   only S empty  0     0      0    0
enum class Empty : std::int32_t { nan, monai, one, zero };

[[maybe_unused]] PROTOSEG_INLINE double empty_score(bool map_empty, bool target_empty,
                                                    Empty policy) {
  const double nan = static_cast<double>(NAN);
  if (target_empty && policy == Empty::monai) return nan;
  if (!(map_empty && target_empty)) return 0.0;
  return policy == Empty::nan ? nan : policy == Empty::one ? 1.0 : 0.0;
}

// dice = 2 TP / (|S| + |G|), iou = TP / (|S| + |G| - TP), precision = TP / |S|,
// recall = TP / |G|. Undefined counts score NaN. Wherever a denominator can vanish, S or G is
// empty, and `empty` answers.
[[maybe_unused]] PROTOSEG_INLINE double score(const Counts& counts, Score which, Empty empty) {
  if (!counts.defined) return static_cast<double>(NAN);
  const double tp = static_cast<double>(counts.tp);
  const double predicted = static_cast<double>(counts.predicted);
  const double actual = static_cast<double>(counts.actual);
  const bool map_empty = counts.predicted == 0;
  const bool target_empty = counts.actual == 0;
  // Precision does not know |G|, recall does not know |S|: for them only their own denominator
  // counts as empty, and 0 / 0 is the "both empty" row.
  if (which == Score::precision) return map_empty ? empty_score(true, true, empty) : tp / predicted;
  if (which == Score::recall) return target_empty ? empty_score(true, true, empty) : tp / actual;
  if (map_empty || target_empty) return empty_score(map_empty, target_empty, empty);
  if (which == Score::iou) return tp / (predicted + actual - tp);
  return 2.0 * tp / (predicted + actual);
}

}  // namespace protoseg
