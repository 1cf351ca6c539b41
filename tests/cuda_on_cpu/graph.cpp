// Graphs: captured from streams, or made of other graphs; replayed in an order that their
// dependencies allow.
#include <map>

#include "tests/cuda_on_cpu/stream.h"

struct CUgraphExec_st {
    std::shared_ptr<CUgraph_st> graph;
};

using namespace emu;

static std::map<cudaGraph_t, std::shared_ptr<CUgraph_st>> graphs;
static int urgent;

int emu::urgent_graphs()
{
    return urgent;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode)
{
    EMU_CALL("graph");
    if (stream_capturing(s)) return remember(cudaErrorIllegalState);
    s->capture = std::make_shared<Capture>(Capture{std::make_shared<CUgraph_st>(), s, {s}, false});
    s->after.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus *status)
{
    EMU_LOCK;
    *status = !stream_capturing(s)  ? cudaStreamCaptureStatusNone
              : s->capture->spoiled ? cudaStreamCaptureStatusInvalidated
                                    : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

static void add_all_before(const CUgraph_st &g, size_t node, std::set<size_t> *before)
{
    if (!before->insert(node).second) return;
    for (const size_t earlier : g.nodes[node].after) add_all_before(g, earlier, before);
}

// Every stream that took part must have been joined: what it did last comes before the origin's
// end.
static bool all_joined(const Capture &c)
{
    std::set<size_t> joined;
    for (const size_t node : c.origin->after) add_all_before(*c.graph, node, &joined);
    for (const cudaStream_t s : c.streams)
        for (const size_t node : s->after)
            if (!joined.count(node)) return false;
    return true;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph)
{
    EMU_CALL("graph");
    *graph = nullptr;
    const std::shared_ptr<Capture> c = s->capture;
    if (!c || c->origin != s) return remember(cudaErrorStreamCaptureUnmatched);
    const bool joined = all_joined(*c);
    for (const cudaStream_t member : c->streams) {
        member->capture = nullptr;
        member->after.clear();
    }
    if (c->spoiled) return remember(cudaErrorStreamCaptureInvalidated);
    if (!joined) return remember(cudaErrorStreamCaptureUnjoined);
    *graph = c->graph.get();
    graphs[*graph] = c->graph;
    return cudaSuccess;
}

cudaError_t cudaGraphCreate(cudaGraph_t *graph, unsigned)
{
    EMU_CALL("graph");
    const auto made = std::make_shared<CUgraph_st>();
    *graph = made.get();
    graphs[*graph] = made;
    return cudaSuccess;
}

// A copy of the child's nodes: what it does not depend on may run between them. A handle is the
// number of the child, from 1.
cudaError_t cudaGraphAddChildGraphNode(cudaGraphNode_t *node, cudaGraph_t graph,
                                       const cudaGraphNode_t *after, size_t count,
                                       cudaGraph_t child)
{
    EMU_CALL("graph");
    const std::vector<CUgraph_st::Node> copy = graphs.at(child)->nodes;
    const size_t first = graphs.at(graph)->nodes.size();
    std::set<size_t> before, own;
    for (size_t i = 0; i < count; i++) {
        const std::set<size_t> &nodes = graph->children.at((size_t)(uintptr_t)after[i] - 1);
        before.insert(nodes.begin(), nodes.end());
    }
    for (const CUgraph_st::Node &n : copy) {
        std::set<size_t> earlier = before;
        for (const size_t i : n.after) earlier.insert(first + i);
        own.insert(graph->nodes.size());
        graph->nodes.push_back({n.operation, earlier});
    }
    graph->urgent |= child->urgent;
    graph->children.push_back(own);
    *node = (cudaGraphNode_t)(uintptr_t)graph->children.size();
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    EMU_CALL("graph");
    *exec = new CUgraphExec_st{graphs.at(graph)};
    urgent += graph->urgent;
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t s)
{
    EMU_CALL("graph");
    return stream_capturing(s) ? capture_spoiled() : cudaSuccess;
}

static std::vector<size_t> replay_order(const CUgraph_st &g)
{
    std::vector<size_t> list, ready;
    std::vector<bool> done(g.nodes.size());
    const auto can_run = [&](size_t i) {
        for (const size_t earlier : g.nodes[i].after)
            if (!done[earlier]) return false;
        return !done[i];
    };
    while (list.size() < g.nodes.size()) {
        ready.clear();
        for (size_t i = 0; i < g.nodes.size() && (order != FORWARD || ready.empty()); i++)
            if (can_run(i)) ready.push_back(i);
        const size_t next = order == RANDOM ? ready[random_below((uint32_t)ready.size())]
                                            : (order == REVERSE ? ready.back() : ready.front());
        done[next] = true;
        list.push_back(next);
    }
    return list;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s)
{
    EMU_CALL("graph");
    const std::shared_ptr<CUgraph_st> g = exec->graph;
    const std::vector<size_t> list = replay_order(*g);
    stream_push(s, [=] {
        for (const size_t i : list) g->nodes[i].operation();
        return true;
    });
    if (g->urgent) stream_finish(s);
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    EMU_CALL("graph");
    urgent -= exec->graph->urgent;
    delete exec;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    EMU_CALL("graph");
    graphs.erase(graph);
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    EMU_LOCK;
    if (nodes) fail("cudaGraphGetNodes: only counts here");
    *count = graph->nodes.size();
    return cudaSuccess;
}
