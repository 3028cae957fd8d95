// size: one table of all options
#include "server/options.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "runtime/api/device_names.h"
#include "runtime/base/error.h"
#include "server/byte_size.h"
#include "server/listen_address.h"
#include "server/option_row.h"

namespace videonsa {
namespace {

using Row = OptionRow;

// What a running server takes over; the rest is read once.
constexpr std::array<absl::string_view, 9> kReloaded = {
    "log-level",    "tenant-requests",      "tenant-questions",
    "tenant-calls", "tenant-prompt-tokens", "tenant-output-tokens",
    "tenant-clips", "tenant-clip-bytes",    "tenant-uploads"};

absl::Status BadValue(const std::string& name, absl::string_view value, absl::string_view range) {
  return MakeError(absl::StatusCode::kInvalidArgument, "OPTION_INVALID",
                   absl::StrCat("--", name, ": \"", value.substr(0, 64), "\" is not ", range));
}

// Accessors so that nested fields fit: a function from options to the field.
template <typename T>
using Field = std::function<T&(ServerOptions&)>;

template <typename T>
const T& Get(const Field<T>& field, const ServerOptions& options) {
  return field(const_cast<ServerOptions&>(options));
}

Row Text(std::string name, std::string range, Field<std::string> field, std::string meaning) {
  return {name,
          "",
          range,
          meaning,
          false,
          [field](ServerOptions& options, absl::string_view value) {
            field(options) = std::string(value);
            return absl::OkStatus();
          },
          [field](const ServerOptions& options) {
            const std::string& value = Get(field, options);
            return value.empty() ? std::string("(empty)") : value;
          }};
}

Row Choice(std::string name, std::vector<std::string> values, Field<std::string> field,
           std::string meaning) {
  const std::string range = absl::StrCat("one of ", absl::StrJoin(values, ", "));
  return {name,
          "",
          range,
          meaning,
          false,
          [name, range, values, field](ServerOptions& options, absl::string_view value) {
            if (std::find(values.begin(), values.end(), std::string(value)) == values.end()) {
              return BadValue(name, value, range);
            }
            field(options) = std::string(value);
            return absl::OkStatus();
          },
          [field](const ServerOptions& options) {
            const std::string& value = Get(field, options);
            return value.empty() ? std::string("(as trained)") : value;
          }};
}

template <typename T>
Row Number(std::string name, std::string unit, T low, T high, Field<T> field, std::string meaning) {
  const std::string range = absl::StrCat(low, " to ", high);
  return {name,
          unit,
          range,
          meaning,
          false,
          [name, range, low, high, field](ServerOptions& options, absl::string_view value) {
            T number{};
            bool parsed;
            if constexpr (std::is_same_v<T, double>) {
              parsed = absl::SimpleAtod(value, &number);
            } else {
              parsed = absl::SimpleAtoi(value, &number);
            }
            if (!parsed || !(number >= low && number <= high)) return BadValue(name, value, range);
            field(options) = number;
            return absl::OkStatus();
          },
          [field](const ServerOptions& options) { return absl::StrCat(Get(field, options)); }};
}

Row Bytes(std::string name, int64_t low, int64_t high, Field<int64_t> field, std::string meaning) {
  const std::string range = absl::StrCat(FormatByteSize(low), " to ", FormatByteSize(high));
  return {name,
          "bytes (K, M, G, T)",
          range,
          meaning,
          false,
          [name, range, low, high, field](ServerOptions& options, absl::string_view value) {
            int64_t bytes = 0;
            if (!ParseByteSize(value, &bytes) || bytes < low || bytes > high) {
              return BadValue(name, value, range);
            }
            field(options) = bytes;
            return absl::OkStatus();
          },
          [field](const ServerOptions& options) { return FormatByteSize(Get(field, options)); }};
}

Row Seconds(std::string name, double low, double high, Field<absl::Duration> field,
            std::string meaning) {
  const std::string range = absl::StrFormat("%g to %g", low, high);
  return {name,
          "seconds",
          range,
          meaning,
          false,
          [name, range, low, high, field](ServerOptions& options, absl::string_view value) {
            double seconds = 0;
            if (!absl::SimpleAtod(value, &seconds) || !(seconds >= low && seconds <= high)) {
              return BadValue(name, value, range);
            }
            field(options) = absl::Seconds(seconds);
            return absl::OkStatus();
          },
          [field](const ServerOptions& options) {
            return absl::StrFormat("%g", absl::ToDoubleSeconds(Get(field, options)));
          }};
}

Row Flag(std::string name, Field<bool> field, std::string meaning) {
  return {name,
          "",
          "true or false",
          meaning,
          true,
          [name, field](ServerOptions& options, absl::string_view value) {
            if (value != "true" && value != "false") {
              return BadValue(name, value, "true or false");
            }
            field(options) = value == "true";
            return absl::OkStatus();
          },
          [field](const ServerOptions& options) {
            return std::string(Get(field, options) ? "true" : "false");
          }};
}

#define VNSA_FIELD(type, member) Field<type>([](ServerOptions& o) -> type& { return o.member; })

void AddModelRows(std::vector<Row>& rows) {
  constexpr int64_t kMaxBytes = int64_t{1} << 50;
  rows.push_back(Text("model", "a folder", VNSA_FIELD(std::string, runtime.model_dir),
                      "Hugging Face folder of the model; empty: the bundled demo model."));
  rows.push_back({"load-format", "", "one of auto, dummy",
                  "dummy: random weights of the folder's configuration, for benches.", false,
                  [](ServerOptions& options, absl::string_view value) {
                    if (value != "auto" && value != "dummy") {
                      return BadValue("load-format", value, "one of auto, dummy");
                    }
                    options.runtime.dummy_weights = value == "dummy";
                    return absl::OkStatus();
                  },
                  [](const ServerOptions& options) {
                    return std::string(options.runtime.dummy_weights ? "dummy" : "auto");
                  }});
  rows.push_back(Choice("attention",
                        {"dense", "causal_nsa", "released_nsa", "tri_shape", "minference",
                         "flexprefill", "xattention"},
                        VNSA_FIELD(std::string, runtime.attention),
                        "Attention over visual tokens, instead of the one trained."));
  rows.push_back(Choice("compute-type", {"auto", "fp32", "bf16"},
                        VNSA_FIELD(std::string, runtime.compute_type),
                        "Arithmetic of weights; auto: bf16 where the processor has it."));
  rows.push_back({"preprocess", "", "one of lmms_eval, qwen_vl_utils",
                  "Published preprocessing used when a question names none.", false,
                  [](ServerOptions& options, absl::string_view value) {
                    if (value != "lmms_eval" && value != "qwen_vl_utils") {
                      return BadValue("preprocess", value, "one of lmms_eval, qwen_vl_utils");
                    }
                    options.runtime.preprocess_mode = value == "lmms_eval"
                                                          ? PreprocessMode::kLmmsEval
                                                          : PreprocessMode::kQwenVlUtils;
                    return absl::OkStatus();
                  },
                  [](const ServerOptions& options) {
                    return std::string(options.runtime.preprocess_mode == PreprocessMode::kLmmsEval
                                           ? "lmms_eval"
                                           : "qwen_vl_utils");
                  }});
  rows.push_back(
      {"device", "", "auto, cpu, cuda, cuda:all or a list like cuda:0,cuda:1",
       "Where the model runs: a worker for each GPU named, or for each --tensor-parallel "
       "of them; cuda: the first ones; auto: those if they can be used, else the CPU.",
       false,
       [](ServerOptions& options, absl::string_view value) {
         const absl::Status status = ParseDeviceNames(value).status();
         if (value.empty() || !status.ok()) {
           return BadValue("device", value,
                           "auto, cpu, cuda, cuda:all or a list like cuda:0,cuda:1, "
                           "every GPU once");
         }
         options.runtime.device = std::string(value);
         return absl::OkStatus();
       },
       [](const ServerOptions& options) { return options.runtime.device; }});
  rows.push_back(Number<int>("tensor-parallel", "ranks", 1, 8,
                             VNSA_FIELD(int, runtime.tensor_parallel),
                             "Ranks that share one model: a GPU each, or groups of the CPU's "
                             "threads; must divide the model's KV heads."));
  rows.push_back(Number<int>("threads", "threads", 0, 1024, VNSA_FIELD(int, runtime.cpu_threads),
                             "Threads that compute; 0: all cores."));
  rows.push_back(Number<int>("cpu-workers", "workers", 1, 64, VNSA_FIELD(int, runtime.cpu_workers),
                             "Groups of threads that each hold the model and a share of the KV "
                             "memory; one that fails is restarted beside the others."));
  rows.push_back(Bytes("kv-bytes", 0, kMaxBytes, VNSA_FIELD(int64_t, runtime.kv_bytes),
                       "Memory for keys and values; 0: a quarter of what is available."));
  rows.push_back(Number<int64_t>("max-context", "tokens", 0, int64_t{1} << 24,
                                 VNSA_FIELD(int64_t, runtime.max_context_tokens),
                                 "Longest prompt plus answer; 0: the model's."));
  rows.push_back(Number<int>("max-running", "questions", 1, 1024,
                             VNSA_FIELD(int, runtime.max_running), "Questions that run at once."));
  rows.push_back(Number<int>("max-waiting", "questions", 1, 100000,
                             VNSA_FIELD(int, runtime.max_waiting),
                             "Questions that wait; beyond: UNAVAILABLE."));
  rows.push_back(Number<int>("prefill-chunk", "tokens", 0, 65536,
                             VNSA_FIELD(int, runtime.prefill_chunk_tokens),
                             "Prompt tokens of one step; 0: 512 on a CPU, 16384 on a GPU."));
  rows.push_back(Number<int>("max-preemptions", "times", 0, 100,
                             VNSA_FIELD(int, runtime.max_preemptions),
                             "How often one question may be put back in the queue for those of "
                             "higher priority; 0: never."));
  rows.push_back(Number<double>("warm-up", "seconds", 0, 60,
                                VNSA_FIELD(double, runtime.warm_up_seconds),
                                "Steps that a worker runs and times before it serves, so that "
                                "predictions begin right; 0: the first questions teach them."));
  rows.push_back(
      Flag("batch-invariant", VNSA_FIELD(bool, runtime.batch_invariant),
           "A GPU answers bit for bit alike whatever is decoded beside a question; slower "
           "from five answers at once on. A CPU always does."));
  rows.push_back(Number<int>("default-output-tokens", "tokens", 1, 1 << 20,
                             VNSA_FIELD(int, runtime.default_max_output_tokens),
                             "Answer length when a question names none."));
  rows.push_back(Number<int>("max-output-tokens", "tokens", 1, 1 << 20,
                             VNSA_FIELD(int, runtime.max_output_tokens), "Longest answer."));
}

void AddMediaRows(std::vector<Row>& rows) {
  rows.push_back(Bytes("patch-buffer", 1, int64_t{1} << 40,
                       VNSA_FIELD(int64_t, runtime.patch_buffer_bytes),
                       "Decoded patches of a clip that may wait; longer clips are decoded as the "
                       "model takes them."));
  rows.push_back(Text("decoder", "a program", VNSA_FIELD(std::string, runtime.decoder_binary),
                      "Path of videonsa-decoder; empty: beside this program."));
  rows.push_back(Number<int>("decoders", "processes", 1, 64,
                             VNSA_FIELD(int, runtime.decoder_processes),
                             "Decoder processes side by side."));
  rows.push_back(Number<double>("default-fps", "frames a second", 0.01, 60,
                                VNSA_FIELD(double, runtime.default_fps),
                                "Sampling rate when a question names none."));
  rows.push_back(Number<int>("max-frames", "frames", 2, 100000, VNSA_FIELD(int, runtime.max_frames),
                             "Frames of one clip."));
}

void AddListenRows(std::vector<Row>& rows) {
  rows.push_back(Text("listen", "host:port, port 0 chooses", VNSA_FIELD(std::string, listen),
                      "Public address."));
  rows.push_back(Text("admin-listen", "host:port (port 0 chooses) or unix:path, empty: none",
                      VNSA_FIELD(std::string, admin_listen),
                      "Address of operator calls. Beyond the loopback it has the TLS of the public "
                      "address and needs --tls-cert and --access-file."));
  rows.push_back(Text("health-listen", "host:port, port 0 chooses, empty: none",
                      VNSA_FIELD(std::string, health_listen),
                      "Unencrypted address that answers gRPC health checks and nothing else, for "
                      "probes that know no TLS."));
  rows.push_back(Text("metrics-listen", "host:port, port 0 chooses, empty: none",
                      VNSA_FIELD(std::string, metrics_listen), "Address of GET /metrics."));
  rows.push_back(Choice("reflection", {"auto", "true", "false"},
                        VNSA_FIELD(std::string, reflection),
                        "Answer gRPC reflection, so that generic tools know the methods; it asks "
                        "for no token. auto: while there is no access file."));
  rows.back().flag = true;
}

void AddConnectionRows(std::vector<Row>& rows) {
  rows.push_back(Number<int>("max-streams", "calls", 1, 10000,
                             VNSA_FIELD(int, connection.max_streams),
                             "Open calls of one connection."));
  rows.push_back(Seconds("handshake-timeout", 0.1, 120,
                         VNSA_FIELD(absl::Duration, connection.handshake),
                         "A connection that has not begun to speak HTTP/2 by then is closed."));
  rows.push_back(Seconds("connection-idle", 1, 86400, VNSA_FIELD(absl::Duration, connection.idle),
                         "A connection without a call for so long is closed."));
  rows.push_back(Seconds("connection-age", 1, 864000, VNSA_FIELD(absl::Duration, connection.age),
                         "A connection is closed at this age, a tenth more or less, once its calls "
                         "have ended; so balancers spread load anew."));
  rows.push_back(Seconds("keepalive", 1, 86400, VNSA_FIELD(absl::Duration, connection.keepalive),
                         "A connection that is silent for so long is pinged."));
  rows.push_back(Seconds("keepalive-timeout", 1, 3600,
                         VNSA_FIELD(absl::Duration, connection.keepalive_timeout),
                         "It is closed if nothing answers the ping by then."));
}

void AddAccessRows(std::vector<Row>& rows) {
  constexpr int64_t kMost = int64_t{1} << 40;
  rows.push_back(Text("access-file", "a YAML file, empty: everybody may do everything",
                      VNSA_FIELD(std::string, access.file),
                      "Digests of tokens, names in client certificates, tenants and their limits; "
                      "read again when it changes."));
  rows.push_back(Text("tls-cert", "a PEM file, empty: no TLS",
                      VNSA_FIELD(std::string, access.tls.cert),
                      "Certificate of the public address, leaf first; read again when it "
                      "changes."));
  rows.push_back(
      Text("tls-key", "a PEM file", VNSA_FIELD(std::string, access.tls.key), "Key of --tls-cert."));
  rows.push_back(Text("tls-client-ca", "a PEM file, empty: clients show no certificate",
                      VNSA_FIELD(std::string, access.tls.client_ca),
                      "Authorities; every client must show a certificate of theirs."));
  const auto limit = [&rows](const char* name, const char* unit, Field<int64_t> field,
                             const char* meaning) {
    rows.push_back(Number<int64_t>(name, unit, 0, kMost, std::move(field), meaning));
  };
  limit("tenant-requests", "calls a minute", VNSA_FIELD(int64_t, access.tenant.requests_per_minute),
        "Of one tenant, a minute's worth at once at most; 0: no limit.");
  limit("tenant-questions", "questions", VNSA_FIELD(int64_t, access.tenant.questions),
        "Of one tenant at once, waiting ones too; 0: no limit.");
  limit("tenant-calls", "calls", VNSA_FIELD(int64_t, access.tenant.calls),
        "Open calls of one tenant of any kind; 0: no limit.");
  limit("tenant-prompt-tokens", "tokens a minute",
        VNSA_FIELD(int64_t, access.tenant.prompt_tokens_per_minute),
        "Prompt tokens computed for one tenant, cached ones apart; 0: no limit.");
  limit("tenant-output-tokens", "tokens a minute",
        VNSA_FIELD(int64_t, access.tenant.output_tokens_per_minute),
        "Tokens made for one tenant; 0: no limit.");
  rows.push_back(Number<int>("metrics-tenants", "tenants", 0, 100,
                             VNSA_FIELD(int, access.named_tenants),
                             "Tenants that metrics name, the first of the access file by name; the "
                             "others are \"other\". 0: no metric has a tenant in it."));
}

void AddClipRows(std::vector<Row>& rows) {
  constexpr int64_t kMaxBytes = int64_t{1} << 50;
  rows.push_back(Text("clip-dir", "a folder", VNSA_FIELD(std::string, clips.dir),
                      "Where clips are stored; empty: videonsa/clips under the user's state "
                      "folder."));
  rows.push_back(Bytes("max-clip-bytes", 1, kMaxBytes, VNSA_FIELD(int64_t, clips.max_clip_bytes),
                       "Largest clip."));
  rows.push_back(Bytes("tenant-clip-bytes", 1, kMaxBytes, VNSA_FIELD(int64_t, clips.tenant_bytes),
                       "Clips of one tenant."));
  rows.push_back(Number<int>("tenant-clips", "clips", 1, 1000000,
                             VNSA_FIELD(int, clips.tenant_clips), "Clips of one tenant."));
  rows.push_back(Number<int>("tenant-uploads", "uploads", 1, 10000,
                             VNSA_FIELD(int, clips.tenant_uploads),
                             "Unfinished uploads of one tenant."));
  rows.push_back(Bytes("total-clip-bytes", 1, kMaxBytes, VNSA_FIELD(int64_t, clips.total_bytes),
                       "All clips."));
  rows.push_back(Number<double>("free-space-floor", "share", 0, 0.99,
                                VNSA_FIELD(double, clips.free_space_floor),
                                "Share of the file system that uploads leave free."));
  rows.push_back(Seconds("clip-ttl", 60, 3.2e7, VNSA_FIELD(absl::Duration, clips.default_ttl),
                         "Life of a clip after its last use, if the upload names none."));
  rows.push_back(Seconds("max-clip-ttl", 60, 3.2e8, VNSA_FIELD(absl::Duration, clips.max_ttl),
                         "Longest life an upload may name."));
  rows.push_back(Seconds("upload-ttl", 60, 3.2e6, VNSA_FIELD(absl::Duration, clips.upload_ttl),
                         "Life of an unfinished upload after its last byte."));
  rows.push_back(Seconds("upload-idle", 1, 3600, VNSA_FIELD(absl::Duration, upload_idle),
                         "An upload stream without a chunk for so long ends."));
  rows.push_back(Bytes("upload-min-rate", 0, int64_t{1} << 30, VNSA_FIELD(int64_t, upload_min_rate),
                       "A second, averaged over 10 s; slower upload streams end."));
}

// A list of values between commas; `parse` appends one value or says false.
template <typename T>
Row List(std::string name, std::string range, Field<std::vector<T>> field,
         std::function<bool(absl::string_view, std::vector<T>&)> parse,
         std::function<std::string(const T&)> format, std::string meaning) {
  return {name,
          "",
          range,
          meaning,
          false,
          [name, range, field, parse](ServerOptions& options, absl::string_view value) {
            std::vector<T> out;
            for (const absl::string_view item : absl::StrSplit(value, ',', absl::SkipEmpty())) {
              if (!parse(item, out)) return BadValue(name, item, range);
            }
            field(options) = std::move(out);
            return absl::OkStatus();
          },
          [field, format](const ServerOptions& options) {
            const std::string text =
                absl::StrJoin(Get(field, options), ",",
                              [&](std::string* out, const T& item) { out->append(format(item)); });
            return text.empty() ? std::string("(empty)") : text;
          }};
}

bool ParseHost(absl::string_view host, std::vector<std::string>& out) {
  absl::string_view name = host;
  absl::ConsumePrefix(&name, "*.");
  const bool plain = !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '.';
  });
  if (plain) out.emplace_back(host);
  return plain;
}

bool ParsePort(absl::string_view text, std::vector<int>& out) {
  int port = 0;
  if (!absl::SimpleAtoi(text, &port) || port < 1 || port > 65535) return false;
  out.push_back(port);
  return true;
}

bool ParseNetwork(absl::string_view text, std::vector<IpNetwork>& out) {
  absl::StatusOr<IpNetwork> network = IpNetwork::Parse(text);
  if (network.ok()) out.push_back(*std::move(network));
  return network.ok();
}

void AddUrlRows(std::vector<Row>& rows) {
  rows.push_back(List<std::string>(
      "url-hosts", "names like media.example.org or *.example.org",
      VNSA_FIELD(std::vector<std::string>, urls.rules.hosts), ParseHost,
      [](const std::string& host) { return host; },
      "Hosts that clips may be fetched from; empty: no fetching."));
  rows.push_back(List<int>(
      "url-ports", "1 to 65535", VNSA_FIELD(std::vector<int>, urls.rules.ports), ParsePort,
      [](const int& port) { return absl::StrCat(port); }, "Ports that clips may be fetched from."));
  rows.push_back(Flag("url-http", VNSA_FIELD(bool, urls.rules.allow_http),
                      "Fetch over http too, not only https."));
  rows.push_back(List<IpNetwork>(
      "url-networks", "networks like 10.0.0.0/8",
      VNSA_FIELD(std::vector<IpNetwork>, urls.rules.networks), ParseNetwork,
      [](const IpNetwork& network) { return network.ToString(); },
      "Addresses that may be fetched from beside public ones."));
  rows.push_back(Number<int>("url-redirects", "redirects", 0, 10,
                             VNSA_FIELD(int, urls.rules.max_redirects),
                             "Followed in one fetch; each is checked like the first address."));
  rows.push_back(Seconds("url-timeout", 1, 86400, VNSA_FIELD(absl::Duration, urls.limits.total),
                         "Longest fetch."));
  rows.push_back(Bytes("url-min-rate", 0, int64_t{1} << 30,
                       VNSA_FIELD(int64_t, urls.limits.min_rate),
                       "A second, over 10 s; slower fetches end."));
  rows.push_back(
      Number<int>("url-fetches", "fetches", 1, 64, VNSA_FIELD(int, urls.threads), "At once."));
}

void AddSessionRows(std::vector<Row>& rows) {
  rows.push_back(Number<int>("sessions", "sessions", 0, 100000, VNSA_FIELD(int, sessions.total),
                             "That may exist at once."));
  rows.push_back(Number<int>("tenant-sessions", "sessions", 0, 100000,
                             VNSA_FIELD(int, sessions.tenant), "Of one tenant."));
  rows.push_back(Seconds("session-ttl", 1, 3.2e7, VNSA_FIELD(absl::Duration, sessions.default_ttl),
                         "Life of a session after its last use, if its caller names none."));
  rows.push_back(Seconds("max-session-ttl", 1, 3.2e7, VNSA_FIELD(absl::Duration, sessions.max_ttl),
                         "Longest life a session's caller may name."));
  rows.push_back(Bytes("session-bytes", 0, int64_t{1} << 40, VNSA_FIELD(int64_t, sessions.bytes),
                       "Clips and pictures sent inside requests that sessions keep."));
  rows.push_back(Number<double>("session-kv-share", "share", 0, 1,
                                VNSA_FIELD(double, runtime.session_kv_share),
                                "Share of the KV memory that sessions may keep."));
  rows.push_back(Number<double>("tenant-session-kv-share", "share", 0, 1,
                                VNSA_FIELD(double, runtime.tenant_session_kv_share),
                                "The same of one tenant's sessions."));
}

void AddRequestRows(std::vector<Row>& rows) {
  rows.push_back(Seconds("default-deadline", 1, 86400, VNSA_FIELD(absl::Duration, default_deadline),
                         "Time for a question whose caller set no deadline."));
  rows.push_back(Seconds("max-deadline", 1, 86400, VNSA_FIELD(absl::Duration, max_deadline),
                         "Longest time for a question."));
  rows.push_back(Number<int>("max-clips", "clips and pictures", 1, 64,
                             VNSA_FIELD(int, question.max_clips), "In one question."));
  rows.push_back(Bytes("max-text-bytes", 1, 3 << 20, VNSA_FIELD(int64_t, question.max_text_bytes),
                       "All texts of one question."));
  rows.push_back(Bytes("max-inline-bytes", 0, 3 << 20,
                       VNSA_FIELD(int64_t, question.max_inline_bytes),
                       "A clip or picture sent inside a question."));
  rows.push_back(Seconds("replay-ttl", 0, 86400, VNSA_FIELD(absl::Duration, replay_ttl),
                         "How long an answer is kept for repeats of its request_id."));
  rows.push_back(Bytes("replay-bytes", 0, int64_t{1} << 34, VNSA_FIELD(int64_t, replay_bytes),
                       "Memory of those answers."));
  rows.push_back(Bytes("stream-behind", 1024, 3 << 20, VNSA_FIELD(int64_t, stream_behind_bytes),
                       "Text that the reader of a stream may be behind."));
  rows.push_back(Seconds("stream-stall", 1, 3600, VNSA_FIELD(absl::Duration, stream_stall),
                         "A reader that takes nothing for so long is cut off."));
}

void AddLifeRows(std::vector<Row>& rows) {
  rows.push_back(Seconds("drain-grace", 0, 3600, VNSA_FIELD(absl::Duration, drain_grace),
                         "Wait between NOT_SERVING and closing the listener."));
  rows.push_back(Seconds("drain-timeout", 0, 86400, VNSA_FIELD(absl::Duration, drain_timeout),
                         "Time for open questions to end before they are cut short."));
  rows.push_back(
      {"log-level", "", "one of debug, info, warning, error", "Least level written.", false,
       [](ServerOptions& options, absl::string_view value) {
         if (!ParseLogLevel(value, &options.log_level)) {
           return BadValue("log-level", value, "one of debug, info, warning, error");
         }
         return absl::OkStatus();
       },
       [](const ServerOptions& options) { return std::string(LogLevelName(options.log_level)); }});
  rows.push_back(Text("trace-file", "a file, empty: none", VNSA_FIELD(std::string, trace.file),
                      "Where the phases of each question are appended as spans with the ids of its "
                      "traceparent."));
  rows.push_back(Choice("trace-format", {"chrome", "otlp"}, VNSA_FIELD(std::string, trace.format),
                        "chrome: for Perfetto and chrome://tracing; otlp: OTLP/JSON lines."));
}

#undef VNSA_FIELD

std::string FolderOfThisProgram() {
  char path[PATH_MAX];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof(path));
  if (size <= 0) return ".";
  const std::string whole(path, static_cast<size_t>(size));
  return whole.substr(0, whole.rfind('/'));
}

bool Exists(const std::string& path) {
  struct stat facts {};
  return stat(path.c_str(), &facts) == 0;
}

// The first that exists, else the first.
std::string FirstExisting(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    if (Exists(path)) return path;
  }
  return paths.front();
}

std::string StateFolder() {
  if (const char* state = getenv("XDG_STATE_HOME"); state != nullptr && *state == '/') {
    return state;
  }
  if (const char* home = getenv("HOME"); home != nullptr && *home == '/') {
    return absl::StrCat(home, "/.local/state");
  }
  return absl::StrCat("/tmp/videonsa-", geteuid());
}

}  // namespace

const std::vector<OptionRow>& OptionRows() {
  static const auto* const kRows = [] {
    auto* rows = new std::vector<Row>;
    AddModelRows(*rows);
    AddMediaRows(*rows);
    AddListenRows(*rows);
    AddConnectionRows(*rows);
    AddAccessRows(*rows);
    AddClipRows(*rows);
    AddUrlRows(*rows);
    AddSessionRows(*rows);
    AddRequestRows(*rows);
    AddLifeRows(*rows);
    for (Row& row : *rows) {
      row.reload = std::find(kReloaded.begin(), kReloaded.end(), row.name) != kReloaded.end();
    }
    return rows;
  }();
  return *kRows;
}

const OptionRow* FindOption(absl::string_view name) {
  const auto found = std::find_if(OptionRows().begin(), OptionRows().end(),
                                  [name](const OptionRow& row) { return row.name == name; });
  return found == OptionRows().end() ? nullptr : &*found;
}

absl::Status CheckAdminAddress(const ServerOptions& options) {
  if (options.admin_listen.empty() || IsLocalAddress(options.admin_listen)) return absl::OkStatus();
  if (options.access.tls.enabled() && !options.access.file.empty()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "OPTION_INVALID",
                   absl::StrCat("--admin-listen: ", options.admin_listen,
                                " can be reached from other machines, which needs --tls-cert and "
                                "--access-file; 127.0.0.1 or unix: need nothing, probes may ask "
                                "--health-listen"));
}

TenantLimits DefaultTenantLimits(const ServerOptions& options) {
  TenantLimits limits = options.access.tenant;
  limits.clip_bytes = options.clips.tenant_bytes;
  limits.clips = options.clips.tenant_clips;
  limits.uploads = options.clips.tenant_uploads;
  return limits;
}

void ResolvePaths(ServerOptions& options) {
  const std::string here = FolderOfThisProgram();
  if (options.runtime.model_dir.empty()) {
    options.runtime.model_dir = FirstExisting({here + "/../share/videonsa/demo_model/weights",
                                               here + "/../../../deploy/demo_model/weights"});
  }
  if (options.runtime.decoder_binary.empty()) {
    options.runtime.decoder_binary =
        FirstExisting({here + "/videonsa-decoder", here + "/../libexec/videonsa-decoder"});
  }
  if (options.clips.dir.empty()) options.clips.dir = StateFolder() + "/videonsa/clips";
}

}  // namespace videonsa
