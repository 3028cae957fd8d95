#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/struct.pb.h"

namespace videonsa::client {

/// One line of a JSONL file.
struct DatasetRecord {
  int line = 0;  ///< from 1
  google::protobuf::Value value;
};

/// Reads a JSONL file; empty lines are skipped. Errors: NOT_FOUND; INVALID_ARGUMENT naming the line
/// that is no JSON object.
absl::StatusOr<std::vector<DatasetRecord>> ReadDataset(const std::string& path);

/// A clip named in a dataset: stored clips and URLs as they are, files relative to the dataset's
/// folder.
std::string ResolveClip(const std::string& dataset_path, const std::string& clip);

/// The text under `key`; a whole number is written out; empty if missing or of another kind.
std::string TextField(const google::protobuf::Value& record, const std::string& key);

/// The texts of the list under `key`; empty if missing.
std::vector<std::string> ListField(const google::protobuf::Value& record, const std::string& key);

}  // namespace videonsa::client
