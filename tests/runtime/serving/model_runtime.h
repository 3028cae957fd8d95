#pragma once

#include <memory>
#include <string>
#include <utility>

#include "runtime/executor/executor_factory.h"
#include "runtime/serving/runtime_impl.h"
#include "runtime/text/chat_config.h"
#include "tests/support/fake_media.h"
#include "tests/support/model/model_folder.h"

namespace videonsa {

/// A tiny model that speaks the vocabulary of tests/data/text/small.
inline void WriteFolder(const std::string& semantics, const test::TemporaryFolder& folder) {
  test::TinyModel model;
  model.vocab = 1024;
  model.semantics = semantics;
  if (semantics == "released_nsa") {  // defined for 28 and 4 heads only
    model.hidden = 28 * model.head_dim;
    model.q_heads = 28;
    model.kv_heads = 4;
  }
  test::WriteServingFolder(model, folder);
}

/// The real executor with visuals from the fake loader. `num_pages` 0: 16 MB of them.
inline std::unique_ptr<RuntimeImpl> FakeMediaRuntime(const test::TemporaryFolder& folder,
                                                     int plan_depth,
                                                     int64_t patch_buffer_bytes = int64_t{32} << 20,
                                                     FakeMediaLoader** media = nullptr,
                                                     int num_pages = 0) {
  RuntimeParts parts;
  parts.patch_buffer_bytes = patch_buffer_bytes;
  ExecutorOptions executor;
  executor.model_dir = folder.path();
  executor.compute_type = ComputeType::kF32;
  executor.threads = 2;
  executor.kv_bytes = 16 << 20;
  executor.num_pages = num_pages;
  executor.max_rows = 128;
  auto created = CreateExecutor(executor);
  VNSA_CHECK(created.ok()) << created.status();
  parts.executor = *std::move(created);
  parts.tokenizer = *Tokenizer::Load(folder.path());
  parts.prompt.info = parts.executor->info();
  parts.prompt.chat = ReadChatConfig(folder.path(), *parts.tokenizer)->tokens;
  auto loader = std::make_unique<FakeMediaLoader>();
  if (media != nullptr) *media = loader.get();
  parts.media = std::move(loader);
  parts.engine.step.prefill_tokens = 128;
  parts.engine.step.seconds = 0.005;
  parts.engine.plan_depth = plan_depth;
  return std::make_unique<RuntimeImpl>(std::move(parts), Clock::Real());
}

}  // namespace videonsa
