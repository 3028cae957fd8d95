#pragma once

// Included before hwy/highway.h by every kernel source. Two targets are left out because they gain
// nothing here and cost compile time: AVX3_DL (same arithmetic as AVX3) and SSSE3 (SSE4 is older
// than any machine that serves video).
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_AVX3_DL | HWY_SSSE3)
#endif
