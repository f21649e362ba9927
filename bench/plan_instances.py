#!/usr/bin/env python3
"""Turn published layer graphs, networks and machines into planning instances, which bench/plan_table.c solves.

    python3 bench/plan_instances.py --plans DIR --topologies DIR > instances.txt
    build/bench/plan_table instances.txt

DIR of --plans holds dnn-partitioning/ (layer graphs in JSON), piper/ (JSON), pipedream/ (graph.txt profiles) and
device_hpl_gflops.csv (HPL rates of boards and servers); DIR of --topologies holds sndlib/ (networks as topohub writes
them, JSON) and planetlab-rtt.txt (a matrix of round trips, ms). Every network is drawn --draws times: so many nodes at
sites of it, each a machine of the table, and the next layer graph in turn.

What the sources do not say is decided here, the same for the same --seed:

    chain     a topological order of the graph, always on with the layer that leaves the fewest bytes to pass; a cut
              passes what any later layer needs. The layer that takes least joins the shorter one of its neighbours,
              until --blocks are left and all take some time. Where a graph has forwards alone, a backward takes 1.1
              forwards, as with frozen weights; where it has their sum alone, two thirds of it.
    speed     the graphs' times are those of a machine of --reference GFLOPS (about the GPU that they come from);
              elsewhere they are longer in proportion to HPL.
    sndlib    topohub has no capacities: a link has the standard rate above its load, of which the busiest has 1 Gbit/s.
              Two sites use the widest path, of those the shortest, at 5 us/km and 0.1 ms a link. Distances of invented
              maps are scaled to a mean of 100 km a link.
    planetlab half a round trip; a host's access has a drawn rate down, and the same, half or a tenth up.
    machines  every second draw takes any of the table, the others those within a factor of four of a drawn one.
    memory    every second pair of instances has limits: in all three times what the chain takes with two micro-batches in
              flight, shared out in drawn proportions.

An instance, and all units are seconds and bytes:

    instance NAME NODES BLOCKS MICRO_BATCHES
    block FORWARD BACKWARD WEIGHTS STORED CUT      a line each, on a node of factor 1; the cut is the one before it
    node FACTOR MEMORY NAME                        a line each; MEMORY may be inf
    link FROM TO SECONDS_PER_BYTE LATENCY          a line for every ordered pair of nodes that is linked, counted from 0
"""
import argparse
import csv
import glob
import heapq
import json
import os
import random
import re
import sys

RATES = [10e6, 20e6, 50e6, 100e6, 200e6, 500e6, 1e9]  # bit/s
FIBRE_S_KM = 5e-6
HOP_S = 1e-4
INVENTED_KM = 1500  # mean link of a map that cannot be one of the Earth


def fail(message, code):
    print(f"edgepipe: error: {message}", file=sys.stderr)
    sys.exit(code)


# -- layer graphs: {id: (forward_ms, backward_ms or None, weights, stored)}, {(from, to): bytes} ---------------------


def read_partitioning(path):
    with open(path, encoding="utf-8") as file:
        graph = json.load(file)
    forward = {node["name"]: node for node in graph["nodes"] if not node["isBackwardNode"]}
    backward = {node["name"]: node for node in graph["nodes"] if node["isBackwardNode"]}
    names = {node["id"]: node["name"] for node in graph["nodes"]}
    edges = {}
    for edge in graph["edges"]:
        ends = names[edge["sourceId"]], names[edge["destId"]]
        if ends[0] in forward and ends[1] in forward:
            edges[ends] = edge["size"]
    layers = {}
    for name, node in forward.items():
        sent = max([size for (source, _), size in edges.items() if source == name], default=0)
        grad = backward.get(name + "grad")
        layers[name] = (node["fpgaLatency"], grad["fpgaLatency"] if grad else None, max(node["size"] - sent, 0), sent)
    return layers, edges


def read_piper(path):
    with open(path, encoding="utf-8") as file:
        graph = json.load(file)
    unit = 1000 if os.path.basename(path) == "bert32a100.json" else 1  # the only one in seconds
    layers = {}
    for node in graph["nodes"]:
        way = next(way for way in node["TMPCs"]["1"] if way["id"] == "vanilla")
        layers[node["id"]] = (unit * way["timePerSample"] / 3, unit * way["timePerSample"] * 2 / 3,
                              way["memoryUsageB"], way["memoryUsageA"])
    return layers, {(edge["sourceId"], edge["destId"]): edge["communicationCost"] for edge in graph["edges"]}


def read_pipedream(path):
    layers, ends = {}, []
    with open(path, encoding="utf-8") as file:
        for line in file:
            parts = line.strip().split(" -- ")
            if line.startswith("\t"):
                ends.append((parts[0], parts[1]))
                continue
            found = {key: sum(float(part) for part in re.findall(r"[0-9.]+(?:e[-+]?[0-9]+)?", value))
                     for key, value in re.findall(r"(\w+)=(\[[^]]*\]|[-+0-9.e]+)", parts[-1])}
            layers[parts[0]] = (found["forward_compute_time"], found["backward_compute_time"],
                                found["parameter_size"], found["activation_size"])
    return layers, {(source, to): layers[source][3] for source, to in ends}


def read_graphs(folder):
    """(name, layers, edges) of every graph, in the order of their paths."""
    readers = [("dnn-partitioning/*/LayerGraphs/*.json", read_partitioning), ("piper/*.json", read_piper),
               ("pipedream/*.txt", read_pipedream)]
    graphs = []
    for pattern, read in readers:
        for path in sorted(glob.glob(os.path.join(folder, pattern))):
            parts = os.path.relpath(path, folder).split(os.sep)
            name = "-".join(["dnn", parts[1].split("-")[0]] if len(parts) > 2 else [parts[0]])
            graphs.append((name + "-" + os.path.splitext(parts[-1])[0].removesuffix("_graph"), *read(path)))
    return graphs


# -- chains: [forward_s, backward_s, weights, stored, cut] -----------------------------------------------------------


def in_order(layers, edges):
    """A topological order, and the bytes that pass before each layer: a tensor once, whoever needs it."""
    before, after = ({layer: [] for layer in layers} for _ in range(2))
    size = dict.fromkeys(layers, 0)
    for (source, to), size_bytes in edges.items():
        before[to].append(source)
        after[source].append(to)
        size[source] = max(size[source], size_bytes)
    waits = {layer: len(before[layer]) for layer in layers}
    open_to = {layer: len(after[layer]) for layer in layers}
    ready = [layer for layer in layers if waits[layer] == 0]
    order, cuts, passing = [], [], 0

    def leaves(layer):
        """What passes once this layer is done, too."""
        freed = sum(size[source] for source in before[layer] if open_to[source] == 1)
        return passing + size[layer] - freed

    while ready:
        layer = min(ready, key=leaves)
        cuts.append(passing)
        passing = leaves(layer)
        ready.remove(layer)
        order.append(layer)
        for source in before[layer]:
            open_to[source] -= 1
        for to in after[layer]:
            waits[to] -= 1
            if waits[to] == 0:
                ready.append(to)
    if len(order) < len(layers):
        fail("a layer graph has a cycle", 65)
    return order, cuts


def merge(chain, at):
    """The block at this place and the one before it become one."""
    merged = [chain[at - 1][k] + chain[at][k] for k in range(4)] + [chain[at - 1][4]]
    chain[at - 1:at + 1] = [merged]


def chain_of(layers, edges, blocks):
    order, cuts = in_order(layers, edges)
    chain = []
    for layer, cut in zip(order, cuts):
        forward_ms, backward_ms, weights, stored = layers[layer]
        backward_ms = 1.1 * forward_ms if backward_ms is None else backward_ms
        chain.append([forward_ms / 1000, backward_ms / 1000, weights, stored, cut])
    while len(chain) > 1:
        least = min(range(len(chain)), key=lambda i: sum(chain[i][:2]))
        if len(chain) <= blocks and sum(chain[least][:2]) > 0:
            break
        before = sum(chain[least - 1][:2]) if least > 0 else float("inf")
        after = sum(chain[least + 1][:2]) if least + 1 < len(chain) else float("inf")
        merge(chain, least if before <= after else least + 1)
    return chain


# -- clusters: {(i, j): (bit/s, latency_s)} --------------------------------------------------------------------------


def read_network(path):
    """{site: {site: (bit/s, latency_s)}}"""
    with open(path, encoding="utf-8") as file:
        network = json.load(file)
    links = {node["id"]: {} for node in network["nodes"]}
    mean_km = sum(edge["dist"] for edge in network["edges"]) / len(network["edges"])
    scale = 100 / mean_km if mean_km > INVENTED_KM else 1
    for edge in network["edges"]:
        load = max(edge["ecmp_fwd"]["org"], edge["ecmp_bwd"]["org"]) / 100 * RATES[-1]
        rate = next((rate for rate in RATES if rate >= load), RATES[-1])
        link = rate, edge["dist"] * scale * FIBRE_S_KM + HOP_S
        links[edge["source"]][edge["target"]] = links[edge["target"]][edge["source"]] = link
    return links


def widest(links, start):
    """{site: bit/s} of the widest path from start."""
    width, heap = {start: float("inf")}, [(-float("inf"), start)]
    while heap:
        wide, site = heapq.heappop(heap)
        if -wide < width[site]:
            continue
        for to, (rate, _) in links[site].items():
            reached = min(-wide, rate)
            if reached > width.get(to, 0):
                width[to] = reached
                heapq.heappush(heap, (-reached, to))
    return width


def shortest(links, start, end, width):
    """Seconds of the shortest path whose links are all so wide."""
    far, heap = {start: 0.0}, [(0.0, start)]
    while heap:
        length, site = heapq.heappop(heap)
        if site == end:
            return length
        if length > far[site]:
            continue
        for to, (rate, latency) in links[site].items():
            if rate >= width and length + latency < far.get(to, float("inf")):
                far[to] = length + latency
                heapq.heappush(heap, (far[to], to))
    return float("inf")


def draw_network(path, nodes, draw):
    links = read_network(path)
    sites = draw.sample(sorted(links), min(nodes, len(links)))
    found = {}
    for i, site in enumerate(sites):
        width = widest(links, site)
        for j, other in enumerate(sites):
            if i != j and other in width:
                found[i, j] = width[other], shortest(links, site, other, width[other])
    return len(sites), found


def draw_planetlab(path, nodes, draw):
    with open(path, encoding="utf-8") as file:
        trips = [[float(value) for value in line.split()] for line in file]
    hosts = draw.sample(range(len(trips)), nodes)
    down = [draw.choice(RATES) for _ in hosts]
    up = [rate / draw.choice([1, 2, 10]) for rate in down]
    return nodes, {(i, j): (min(up[i], down[j]), trips[a][b] / 2000)
                   for i, a in enumerate(hosts) for j, b in enumerate(hosts) if trips[a][b] > 0 and i != j}


# -- instances -------------------------------------------------------------------------------------------------------


def read_machines(path):
    with open(path, encoding="utf-8", newline="") as file:
        return [(row["device"], float(row["hpl_gflops"])) for row in csv.DictReader(file)]


def draw_machines(machines, nodes, alike, draw):
    if alike:
        one = draw.choice(machines)[1]
        machines = [machine for machine in machines if one / 4 <= machine[1] <= one * 4]
    return draw.choices(machines, k=nodes)


def memories(chain, nodes, draw):
    shares = [draw.choice([1, 2, 4, 8, 16]) for _ in range(nodes)]
    needed = 3 * sum(block[2] + 2 * block[3] for block in chain)
    return [needed * share / sum(shares) for share in shares]


def print_instance(name, chain, machines, memory, links, micro_batches, reference):
    print(f"instance {name} {len(machines)} {len(chain)} {micro_batches}")
    for block in chain:
        print("block", *(f"{value:.9g}" for value in block))
    for (machine, gflops), room in zip(machines, memory):
        print(f"node {reference / gflops:.9g} {room:.9g} {machine}")
    for (i, j), (rate, latency) in sorted(links.items()):
        print(f"link {i} {j} {8 / rate:.9g} {latency:.9g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", required=True, metavar="DIR")
    parser.add_argument("--topologies", required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draws", type=int, default=2, help="of every network (default: 2)")
    parser.add_argument("--nodes", type=int, default=10, help="of an instance at most, at least 3 (default: 10)")
    parser.add_argument("--blocks", type=int, default=48, help="of a chain at most (default: 48)")
    parser.add_argument("--reference", type=float, default=10000, metavar="GFLOPS")
    options = parser.parse_args()
    if options.draws < 1 or options.nodes < 3 or options.blocks < 2 or not options.reference > 0:
        parser.error("--draws is 1 or more, --nodes 3 or more, --blocks 2 or more, --reference above 0")
    try:
        graphs = read_graphs(options.plans)
        machines = read_machines(os.path.join(options.plans, "device_hpl_gflops.csv"))
    except (OSError, KeyError, ValueError, StopIteration) as problem:
        fail(f"cannot read the graphs and machines in '{options.plans}': {problem!r}", 66)
    networks = [(path, draw_network) for path in sorted(glob.glob(os.path.join(options.topologies, "sndlib/*.json")))]
    networks.append((os.path.join(options.topologies, "planetlab-rtt.txt"), draw_planetlab))
    if not graphs or len(networks) < 2:
        fail(f"no layer graphs in '{options.plans}' or no networks in '{options.topologies}'", 66)
    count = 0
    for path, read in networks:
        network = os.path.splitext(os.path.basename(path))[0]
        for turn in range(options.draws if read is draw_network else 4 * options.draws):
            draw = random.Random(f"{options.seed} {network} {turn}")
            graph = graphs[count % len(graphs)]
            try:
                nodes, links = read(path, draw.randint(3, options.nodes), draw)
            except (OSError, KeyError, ValueError) as problem:
                fail(f"cannot read '{path}': {problem!r}", 66)
            chain = chain_of(graph[1], graph[2], options.blocks)
            memory = memories(chain, nodes, draw) if count % 4 >= 2 else [float("inf")] * nodes
            print_instance(f"{network}.{turn}:{graph[0]}", chain, draw_machines(machines, nodes, turn % 2, draw), memory,
                           links, draw.choice([4, 8, 16, 32]), options.reference)
            count += 1


if __name__ == "__main__":
    main()
