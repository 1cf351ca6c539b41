// Streams, events, and what a stream adds to while it captures.
#ifndef TESTS_CUDA_ON_CPU_STREAM_H
#define TESTS_CUDA_ON_CPU_STREAM_H

#include <deque>
#include <set>
#include <vector>

#include "tests/cuda_on_cpu/internal.h"

// The runtime's own names for what its handles point to.
struct CUgraph_st {
    struct Node {
        emu::Operation operation;
        std::set<size_t> after; // nodes that run before it
    };
    std::vector<Node> nodes;
    bool urgent;                            // has operations that other processes wait for
    std::vector<std::set<size_t>> children; // the nodes of each that was added
};

namespace emu
{
struct Capture {
    std::shared_ptr<CUgraph_st> graph;
    cudaStream_t origin;
    std::set<cudaStream_t> streams;
    bool spoiled;
};
} // namespace emu

struct CUstream_st {
    std::deque<emu::Operation> queue;
    std::shared_ptr<emu::Capture> capture; // NULL: none
    std::set<size_t> after;                // what its next captured operation comes after
};

struct CUevent_st {
    uint64_t recorded, done; // how often
    double milliseconds;     // when last done
    std::shared_ptr<emu::Capture> capture;
    std::set<size_t> after;
};

namespace emu
{
extern std::vector<cudaStream_t> streams; // all there are
} // namespace emu

#endif
