// Included first into every file that sees protobuf, in the tsan preset. Under ThreadSanitizer
// protobuf's headers give a map field two more members, which the distribution's library, built
// without, knows nothing of. Here its headers are read as the library's own build read them; the
// standard library's are read before, with the sanitizer in sight.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#pragma push_macro("__SANITIZE_THREAD__")
#undef __SANITIZE_THREAD__
#include <google/protobuf/map_field.h>
#pragma pop_macro("__SANITIZE_THREAD__")
