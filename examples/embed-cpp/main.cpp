// Embedding a compiled model in a C++ program: several threads share one model, each with a
// workspace of its own. With an argument the model comes from that shared object instead of the
// linked one. See build.sh.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include MODEL_HEADER
#include "zenith_open.h"

#define PASTE2(a, b) a##b
#define PASTE(a, b)  PASTE2(a, b)

namespace {

struct alignas(64) Block {
  unsigned char bytes[64];
};

// Memory for one tensor or workspace, 64-byte aligned.
struct Buffer {
  std::vector<Block> blocks;
  void *resize(uint64_t bytes) {
    blocks.assign(static_cast<size_t>(bytes / 64 + 1), Block{});
    return blocks.data();
  }
};

// One independent caller of a model.
class Session {
public:
  explicit Session(const zn_model &model)
      : model_(model), in_(model.num_inputs + 1), out_(model.num_outputs + 1),
        buffers_(in_.size() + out_.size() + 1) {
    for (uint32_t i = 0; i < model.num_inputs; i++) prepare_input(i);
    uint64_t bytes = 0;
    check(model.plan(in_.data(), out_.data(), &bytes, 0, nullptr));
    for (uint32_t i = 0; i < model.num_outputs; i++)
      out_[i].u.data = buffers_[in_.size() + i].resize(out_[i].bytes);
    ws_bytes_ = static_cast<size_t>(bytes);
    ws_ = buffers_.back().resize(bytes);
  }
  void run() { check(model_.run(in_.data(), out_.data(), ws_, ws_bytes_, nullptr)); }
  const zn_tensor &output(uint32_t i) const { return out_[i]; }

private:
  void check(int32_t rc) {
    if (rc == ZN_RUN_OK) return;
    std::fprintf(stderr, "%s returned %d\n", model_.name, static_cast<int>(rc));
    std::exit(1);
  }
  void prepare_input(uint32_t i) {
    const zn_io_desc &d = model_.inputs[i];
    zn_tensor &t = in_[i];
    uint64_t count = 1;
    t.dtype = d.dtype;
    t.rank = d.rank;
    for (uint32_t k = 0; k < d.rank; k++) {
      t.shape[k] = d.shape[k] < 0 ? 1 : d.shape[k];
      count *= static_cast<uint64_t>(t.shape[k]);
    }
    t.bytes = count * (d.dtype == 7 || d.dtype == 11 || d.dtype == 13                   ? 8
                       : d.dtype == 1 || d.dtype == 6 || d.dtype == 12                  ? 4
                       : d.dtype == 4 || d.dtype == 5 || d.dtype == 10 || d.dtype == 16 ? 2
                                                                                        : 1);
    t.u.data = buffers_[i].resize(t.bytes);
    for (uint64_t k = 0; d.dtype == 1 && k < count; k++)
      static_cast<float *>(t.u.data)[k] = static_cast<float>(k % 17) * 0.0625f - 0.5f;
  }
  const zn_model &model_;
  std::vector<zn_tensor> in_, out_;
  std::vector<Buffer> buffers_;
  void *ws_ = nullptr;
  size_t ws_bytes_ = 0;
};

} // namespace

int main(int argc, char **argv) {
  const zn_model *model = &PASTE(MODEL_NAME, _model);
  zn_artifact artifact{};
  if (argc > 1) {
    if (zn_open(argv[1], &artifact) != 0) {
      std::fprintf(stderr, "%s: %s\n", argv[1], artifact.error);
      return 1;
    }
    model = artifact.model;
  }
  std::vector<Session> sessions;
  for (int i = 0; i < 4; i++) sessions.emplace_back(*model);
  std::vector<std::thread> threads;
  for (Session &s : sessions)
    threads.emplace_back([&s] {
      for (int i = 0; i < 20; i++) s.run();
    });
  for (std::thread &t : threads) t.join();
  const zn_tensor &first = sessions[0].output(0);
  for (Session &s : sessions)
    if (std::memcmp(first.u.data, s.output(0).u.data, static_cast<size_t>(first.bytes)) != 0) {
      std::fprintf(stderr, "two threads disagree\n");
      return 1;
    }
  std::printf("%s: 4 threads agree\n", model->name);
  for (uint64_t i = 0; first.dtype == 1 && i < first.bytes / 4 && i < 16; i++)
    std::printf("  [%u] %.6f\n", static_cast<unsigned>(i),
                static_cast<double>(static_cast<float *>(first.u.data)[i]));
  sessions.clear();
  zn_close(&artifact);
  return 0;
}
