// A warmed step of the model allocates nothing: every malloc of the process is counted while
// layers, head and sampling run on the CPU backend, in every attention. What oneDNN takes inside a
// product's call (some hundred bytes, given back at once) is not ours to change: it is told by its
// frames and counted apart.
#include <dlfcn.h>
#include <execinfo.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/attention/paged_kv.h"
#include "runtime/model/model.h"
#include "runtime/ops/backends.h"
#include "tests/support/model/model_folder.h"

// glibc's own names of what is replaced here; operator new ends in malloc.
extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* old, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
}

namespace {

std::atomic<bool> g_counting = false;
std::atomic<int64_t> g_ours = 0, g_one_dnn = 0;

void Count() {
  static thread_local bool inside = false;
  if (!g_counting.load(std::memory_order_relaxed) || inside) return;
  inside = true;
  void* frames[16];
  const int count = backtrace(frames, 16);
  bool one_dnn = false;
  for (int i = 0; i < count; ++i) {
    Dl_info info;
    one_dnn |= dladdr(frames[i], &info) != 0 && strstr(info.dli_fname, "libdnnl") != nullptr;
  }
  (one_dnn ? g_one_dnn : g_ours).fetch_add(1, std::memory_order_relaxed);
  inside = false;
}

// Counts while it lives.
class Counting {
 public:
  Counting() {
    void* frames[1];
    backtrace(frames, 1);  // loads what it needs
    g_ours = g_one_dnn = 0;
    g_counting = true;
  }
  ~Counting() { g_counting = false; }
};

}  // namespace

extern "C" {
void* malloc(size_t bytes) {
  Count();
  return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
  Count();
  return __libc_calloc(count, bytes);
}
void* realloc(void* old, size_t bytes) {
  Count();
  return __libc_realloc(old, bytes);
}
void* memalign(size_t alignment, size_t bytes) {
  Count();
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** out, size_t alignment, size_t bytes) {
  *out = memalign(alignment, bytes);
  return *out == nullptr ? 12 : 0;  // ENOMEM
}
}

namespace videonsa {
namespace {

constexpr int kRows = 200, kPages = 5;

// One model of random weights, one sequence in five pages, and everything that a step needs.
class Stepper {
 public:
  Stepper(AttentionSemantics semantics, DType type) : semantics_(semantics) {
    test::TinyModel tiny;
    const bool released = semantics == AttentionSemantics::kReleasedNsa;
    if (IsNativeSparse(semantics)) tiny.semantics = SemanticsName(semantics);
    if (released) tiny.q_heads = 28, tiny.kv_heads = 4;
    test::WriteModelFolder(tiny, folder_);
    backend_ = *CreateCpuBackend(2, type);
    model_ = *Model::Load({.dir = folder_.path()}, *backend_);
    const AttentionShape& shape = model_->language().shape();
    EXPECT_TRUE(model_->language().Reserve(kRows).ok());
    EXPECT_TRUE(backend_->ReserveAttention({shape, semantics, 2, kRows + 8, 4}).ok());
    kv_.dtype = backend_->kv_type();
    kv_.num_kv_heads = shape.num_kv_heads;
    kv_.head_dim = shape.head_dim;
    const int64_t tiles = int64_t{kPages} * shape.num_kv_heads;
    const int64_t bytes = tiles * KvTileElements(shape.head_dim) * SizeOf(kv_.dtype);
    kv_.k_pages = Room(bytes);
    kv_.v_pages = Room(bytes);
    kv_.k_pooled = static_cast<float*>(Room(tiles * shape.head_dim * 4));
    kv_.v_pooled = static_cast<float*>(Room(tiles * shape.head_dim * 4));
    kv_.page_ids = page_ids_;
    hidden_ = Floats(kRows, model_->language().hidden_size());
    logits_ = Floats(1, model_->language().vocab_size());
    table_ = {Floats(kRows, shape.head_dim / 2), Floats(kRows, shape.head_dim / 2)};
    whole_ = {hidden_, Floats(kRows, shape.q_size()), Floats(kRows, shape.q_size()),
              Floats(kRows, 3 * shape.num_q_heads), table_};
    for (int i = 0; i < kRows; ++i) {
      marks_.push_back(i >= 10 && i < 180);
      positions_.push_back(i);
      ids_.push_back(i % tiny.vocab);
    }
    tally_.selection_weight.assign(kPages, 0);
    tally_.mass.assign(kPages, 0);
    tallies_.assign(static_cast<size_t>(tiny.layers), tally_);
  }

  // The prompt, in two pieces where the attention takes pieces, then one answer token.
  void Step() {
    LanguageModel& model = model_->language();
    backend_->BeginStep();
    PrefillContext context;
    context.semantics = semantics_;
    context.selected_blocks = 2;
    context.window_tokens = 32;
    context.is_vision = marks_.data();
    context.is_vision_uploaded = backend_->Upload(absl::MakeConstSpan(marks_));
    context.mass_begin = kRows - 4;
    context.tallies = tallies_.data();
    const int32_t* const axes[3] = {positions_.data(), positions_.data(), positions_.data()};
    model.RopeAngles(axes, table_);
    model.Embed(ids_, hidden_);
    for (int layer = 0; layer < model.num_layers(); ++layer) {
      if (NeedsWholePrompt(semantics_)) {
        model.PrefillLayerWhole(layer, whole_, kv_, context);
        continue;
      }
      for (const auto& [begin, end] : {std::pair{0, 90}, {90, kRows}}) {
        const RopeTable rows = {table_.cos.Rows(begin, end - begin),
                                table_.sin.Rows(begin, end - begin)};
        model.PrefillLayer(layer, begin, hidden_.Rows(begin, end - begin), rows, kv_, context);
      }
    }
    const int32_t* const page_tables[1] = {page_ids_};
    const int32_t kv_lens[1] = {kRows + 1};
    backend_->BeginDecode({page_tables, kv_lens, 1});
    const RopeTable last = {table_.cos.Rows(kRows - 1, 1), table_.sin.Rows(kRows - 1, 1)};
    for (int layer = 0; layer < model.num_layers(); ++layer) {
      model.DecodeLayer(layer, hidden_.Rows(0, 1), last, kv_);
    }
    model.Logits(hidden_.Rows(0, 1), logits_);
    SampleTask* const tasks[1] = {&task_};
    backend_->Sample(logits_, tasks);
    EXPECT_TRUE(backend_->EndStep().ok());
  }

 private:
  void* Room(int64_t bytes) {
    rooms_.emplace_back(std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64), &std::free);
    return rooms_.back().get();
  }
  TensorView Floats(int64_t rows, int64_t columns) {
    return MatrixView(Room(rows * columns * 4), DType::kF32, rows, columns);
  }

  const AttentionSemantics semantics_;
  test::TemporaryFolder folder_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  std::vector<std::unique_ptr<void, decltype(&std::free)>> rooms_;
  PagedKv kv_;
  const int32_t page_ids_[kPages] = {3, 1, 4, 0, 2};
  TensorView hidden_, logits_;
  RopeTable table_;
  LanguageModel::WholePrompt whole_;
  std::vector<uint8_t> marks_;
  std::vector<int32_t> positions_, ids_;
  AttentionTally tally_;
  std::vector<AttentionTally> tallies_;
  SampleTask task_;
};

TEST(NoAllocation, TheCounterCounts) {
  std::vector<int>* vector = nullptr;
  {
    const Counting counting;
    vector = new std::vector<int>(100);
  }
  delete vector;
  EXPECT_EQ(g_ours, 2);
  EXPECT_EQ(g_one_dnn, 0);
}

TEST(NoAllocation, AWarmedStepTakesNoMemoryInAnyAttention) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    if (!CreateCpuBackend(1, type).ok()) continue;  // no bf16 products on this machine
    for (const AttentionSemantics semantics :
         {AttentionSemantics::kDense, AttentionSemantics::kCausalNsa,
          AttentionSemantics::kReleasedNsa, AttentionSemantics::kTriShape,
          AttentionSemantics::kMInference, AttentionSemantics::kFlexPrefill,
          AttentionSemantics::kXAttention}) {
      Stepper stepper(semantics, type);
      stepper.Step();  // oneDNN builds and keeps its code the first time
      {
        const Counting counting;
        stepper.Step();
      }
      EXPECT_EQ(g_ours, 0) << SemanticsName(semantics) << ", type " << static_cast<int>(type);
      RecordProperty(SemanticsName(semantics), static_cast<int>(g_one_dnn));
    }
  }
}

}  // namespace
}  // namespace videonsa
