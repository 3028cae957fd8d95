#pragma once

#include "kernels/attention/paged_kv.h"

namespace videonsa {

/// One stored number of a page, whatever its layout: coordinate `dim` of K (or V) of position
/// `position` and KV head `kv_head`. For oracles and tests.
double ReadK(const PagedKv& kv, int position, int kv_head, int dim);
double ReadV(const PagedKv& kv, int position, int kv_head, int dim);

}  // namespace videonsa
