#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

/// Returns the status of `expr` from the enclosing function if it is not OK.
#define VNSA_RETURN_IF_ERROR(expr)               \
  do {                                           \
    ::absl::Status vnsa_status_ = (expr);        \
    if (!vnsa_status_.ok()) return vnsa_status_; \
  } while (0)

#define VNSA_CONCAT_INNER_(a, b) a##b
#define VNSA_CONCAT_(a, b) VNSA_CONCAT_INNER_(a, b)
#define VNSA_ASSIGN_OR_RETURN_IMPL_(var, lhs, expr) \
  auto var = (expr);                                \
  if (!var.ok()) return std::move(var).status();    \
  lhs = *std::move(var)

/// `VNSA_ASSIGN_OR_RETURN(auto x, F());` binds the value of a StatusOr or returns its error.
#define VNSA_ASSIGN_OR_RETURN(lhs, expr) \
  VNSA_ASSIGN_OR_RETURN_IMPL_(VNSA_CONCAT_(vnsa_statusor_, __LINE__), lhs, expr)
