#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "runtime/kv/page_pool.h"

namespace videonsa {

/// Pages that sessions hold beyond their requests, within a ceiling for all and one a tenant.
///
/// A session holds a prefix of a chain of shared pages, one reference to each; a page that several
/// sessions hold counts once.
///
/// Owner: engine thread only. Lifetime: the pool outlives it.
/// Invariants: I14 held pages <= ceiling, in all and by tenant.
class SessionPins {
 public:
  struct Limits {
    int pages = 0;         ///< of all sessions
    int tenant_pages = 0;  ///< of one tenant's
  };
  struct Owner {
    uint64_t session = 0;
    std::string tenant;
    std::shared_ptr<std::atomic<int>> count;  ///< told how many pages are held; may be null
  };

  SessionPins(PagePool* pool, const Limits& limits);
  ~SessionPins();
  SessionPins(const SessionPins&) = delete;
  SessionPins& operator=(const SessionPins&) = delete;

  /// Makes the session hold as much of `pages` from the front as the ceilings allow, in place of
  /// what it held; returns how many. Takes over one reference to every page and drops those of the
  /// rest.
  int Hold(const Owner& owner, const std::vector<int32_t>& pages);
  /// Lets a session's pages go; an unknown session is fine.
  void Drop(uint64_t session);
  /// Drops the session whose last Hold is longest ago; false if there is none.
  bool DropOldest();

  /// Whether `pages` and `more` pages that are not known yet could be held now.
  bool Fits(const std::string& tenant, const std::vector<int32_t>& pages, int more) const;
  /// Whether some session holds `page`.
  bool holds(int32_t page) const { return holders_[page] > 0; }
  /// Pages that sessions hold.
  int num_pages() const { return num_pages_; }
  int num_sessions() const { return static_cast<int>(sessions_.size()); }
  /// References that sessions hold, for I1.
  int64_t num_references() const { return num_references_; }
  /// Sessions whose pages were taken by DropOldest so far.
  int64_t num_taken() const { return num_taken_; }
  const Limits& limits() const { return limits_; }

 private:
  struct Session {
    Owner owner;
    std::vector<int32_t> pages;
    std::list<uint64_t>::iterator age;
  };
  void Release(const Session& session);
  int TenantPages(const std::string& tenant) const;

  PagePool* const pool_;
  const Limits limits_;
  std::vector<int> holders_;  // sessions that hold a page, by page
  absl::flat_hash_map<uint64_t, Session> sessions_;
  absl::flat_hash_map<std::string, int> tenants_;  // pages
  std::list<uint64_t> oldest_;                     // longest not held first
  int num_pages_ = 0;
  int64_t num_references_ = 0;
  int64_t num_taken_ = 0;
};

}  // namespace videonsa
