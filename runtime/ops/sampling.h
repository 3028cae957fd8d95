#pragma once

/// Sampling on the host: the executor's door to the kernel, which may not be included from there.
#include "kernels/cpu/sample_token.h"
