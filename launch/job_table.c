/*
 * job_table.c - every key of a topology file: one row each, in the order of the resolved file
 * and of `edgepipe help config`. Checks that span several keys are in job.c.
 */
#include "launch/launch.h"

#include <math.h>

#define AT(member) offsetof(struct job, member)
#define NODE(member) offsetof(struct node, member)
#define LINK(member) offsetof(struct link, member)
#define CUT(member) offsetof(struct plan_cut, member)
#define IN_ADAPTERS "go on from an adapter that has it (lora.init)"

#define COLUMN(name, number) \
	{"data.columns." #name, FIELD_TEXT, AT(data.column[number]), \
	 .help = "the key that stands for \"" #name "\" in the lines"}

/* In the order of the enums in launch.h, model.h and pipeline.h; '-': not built yet. */
static const char *const roles[] = {"server", "client", NULL};
static const char *const codecs[] = {"none", "bf16", "int8", "int4", "auto", NULL};
static const char *const cut_codecs[] = {"none", "bf16", "int8", "int4", NULL};
static const char *const masks[] = {"auto", "none", "prompt", "assistant-only", NULL};
static const char *const rates[] = {"linear", "cosine", "constant", NULL};
static const char *const precisions[] = {"fp32", "bf16", NULL};
static const char *const kernels[] = {"auto", "reference", "openblas", "onednn", NULL};
static const char *const recomputes[] = {"none", "mlp", "block", NULL};
static const char *const layouts[] = {"packed", "plain", NULL};
static const char *const solvers[] = {"exact", "search", "bottleneck", "proportional", "uniform", "manual", NULL};
static const char *const schedules[] = {"eager", "1f1b", "gpipe", NULL};
/* Stand for 0. */
static const char *const automatic[] = {"auto", NULL};
static const char *const unlimited[] = {"unlimited", NULL};

static const struct field rows[] = {
	{"version", FIELD_INTEGER, AT(version), "1", 1, 1, .help = "of this format"},
	{"name", FIELD_TEXT, AT(cluster.name),
	 .help = "of the cluster (without one: the file's name)"},

	{"nodes", FIELD_LIST, AT(cluster.nodes), .item_bytes = sizeof(struct node),
	 .required = true, .help = "the servers, one MPI rank each, in this order"},
	{"nodes[].name", FIELD_TEXT, NODE(name), .required = true,
	 .help = "in links and reports"},
	{"nodes[].host", FIELD_TEXT, NODE(host), .help = "where the launcher finds it"},
	{"nodes[].device", FIELD_TEXT, NODE(device), "cpu",
	 .help = "cpu; cuda:N is not built yet"},
	{"nodes[].cores", FIELD_INTEGER, NODE(cores), NULL, 1, 65536,
	 .help = "to compute with (without it: ranks on one host share its usable cores)"},
	{"nodes[].memory", FIELD_BYTES, NODE(memory_bytes), NULL, 1, 0x1p50,
	 .help = "what training may use (without it: the free memory)"},
	{"nodes[].compute", FIELD_FLOPS, NODE(compute_flops), NULL, 1, 1e18,
	 .help = "declared sustained rate"},
	{"nodes[].model", FIELD_PATH, NODE(model),
	 .help = "this node's copy of the model (without it: model.path)"},
	{"nodes[].role", FIELD_WORD, NODE(role), "server", .words = roles,
	 .help = "clients own data and hold the first blocks; compare alone reckons with them"},
	{"nodes[].nic", FIELD_TEXT, NODE(nic),
	 .help = "links of nodes with the same word share one interface"},

	{"links.default.bandwidth", FIELD_BYTES_S, AT(cluster.standard.bandwidth_bytes_s),
	 "unlimited", 1, 1.25e14, unlimited, .help = "of every link, per direction"},
	{"links.default.latency", FIELD_SECONDS, AT(cluster.standard.latency_s), "0 s", 0, 3600,
	 .help = "of every link, per direction"},
	{"links.default.codec", FIELD_WORD, AT(cluster.standard.codec), "none", .words = codecs,
	 .help = "how activations and gradients travel; auto: what the planner finds cheap enough"},
	{"links.between", FIELD_LIST, AT(cluster.links), .item_bytes = sizeof(struct link),
	 .help = "links that differ from the default; of several that fit the last one wins"},
	{"links.between[].nodes", FIELD_TEXTS, LINK(nodes),
	 .help = "[a, b]: both directions between two nodes"},
	{"links.between[].from", FIELD_TEXT, LINK(from),
	 .help = "with to: one direction alone"},
	{"links.between[].to", FIELD_TEXT, LINK(to), .help = "with from: one direction alone"},
	{"links.between[].bandwidth", FIELD_BYTES_S, LINK(bandwidth_bytes_s), NULL, 1, 1.25e14,
	 unlimited, .given = LINK(bandwidth_given),
	 .help = "per direction (without it: the default's)"},
	{"links.between[].latency", FIELD_SECONDS, LINK(latency_s), NULL, 0, 3600,
	 .given = LINK(latency_given),
	 .help = "per direction (without it: the default's)"},
	{"links.between[].codec", FIELD_WORD, LINK(codec), .words = codecs,
	 .given = LINK(codec_given),
	 .help = "how activations and gradients travel"},
	{"links.between[].trace", FIELD_PATH, LINK(trace),
	 .help = "bandwidth to emulate: a CSV file, a row seconds,mbit_s a second, over and over"},

	{"model.path", FIELD_PATH, AT(model), .required = true,
	 .help = "a Hugging Face model directory"},

	{"lora.rank", FIELD_INTEGER, AT(lora.rank), "8", 1, 65536,
	 .given = AT(lora.rank_given), .help = "r of the adapters"},
	{"lora.alpha", FIELD_NUMBER, AT(lora.alpha), "16", 0, INFINITY,
	 .given = AT(lora.alpha_given), .help = "scale is alpha / rank"},
	{"lora.dropout", FIELD_NUMBER, AT(lora.dropout), "0", 0, 1,
	 .given = AT(lora.dropout_given),
	 .help = "on the adapters' input; below 1"},
	{"lora.rslora", FIELD_FLAG, AT(lora.rslora), "false",
	 .given = AT(lora.rslora_given), .help = "scale is alpha / sqrt(rank)"},
	{"lora.targets", FIELD_TEXTS, AT(lora.targets), "attention",
	 .given = AT(lora.targets_given),
	 .help = "attention, all, or PEFT module names inside blocks"},
	{"lora.init", FIELD_PATH, AT(lora.init),
	 .help = "a PEFT adapter directory to go on from"},
	{"lora.rank_pattern", FIELD_TEXT, 0, .refused = IN_ADAPTERS, .help = "PEFT's ranks of single modules"},
	{"lora.alpha_pattern", FIELD_TEXT, 0, .refused = IN_ADAPTERS, .help = "PEFT's alphas of single modules"},

	{"data.train", FIELD_PATH, AT(data.train), .help = "file or directory; train needs it"},
	{"data.valid", FIELD_PATH, AT(data.valid),
	 .help = "file or directory; may be left out"},
	{"data.sequence", FIELD_INTEGER, AT(data.sequence), NULL, 1, 1 << 24,
	 .help = "tokens of a sample (without it: 256, or a pre-tokenised file's own)"},
	{"data.mask", FIELD_WORD, AT(data.mask), "auto", .words = masks,
	 .help = "what is not trained on; auto: the prompt where there is one"},
	{"data.template", FIELD_TEXT, AT(data.template),
	 .help = "how chats are written: chatml, llama3, ... (without it: as the model's chat_template)"},
	{"data.shuffle", FIELD_FLAG, AT(data.shuffle), "true", .help = "anew in every epoch"},
	{"data.pack", FIELD_FLAG, AT(data.pack), NULL, .given = AT(data.pack_given),
	 .help = "several samples in a sequence, unseen by each other (without it: padded; text is cut)"},
	{"data.cache", FIELD_TEXT, AT(data.cache),
	 .help = "folder where tokenised data are kept, or none (without it: ~/.cache/edgepipe/data)"},
	COLUMN(text, COLUMN_TEXT),
	COLUMN(prompt, COLUMN_PROMPT),
	COLUMN(completion, COLUMN_COMPLETION),
	COLUMN(question, COLUMN_QUESTION),
	COLUMN(answer, COLUMN_ANSWER),
	COLUMN(messages, COLUMN_MESSAGES),
	COLUMN(role, COLUMN_ROLE),
	COLUMN(content, COLUMN_CONTENT),
	COLUMN(instruction, COLUMN_INSTRUCTION),
	COLUMN(input, COLUMN_INPUT),
	COLUMN(output, COLUMN_OUTPUT),
	COLUMN(conversations, COLUMN_CONVERSATIONS),
	COLUMN(from, COLUMN_FROM),
	COLUMN(value, COLUMN_VALUE),
	COLUMN(system, COLUMN_SYSTEM),
	COLUMN(history, COLUMN_HISTORY),

	{"train.batch", FIELD_INTEGER, AT(train.batch), "32", 1, 1 << 20,
	 .help = "sequences per step, over the whole cluster"},
	{"train.micro_batch", FIELD_INTEGER, AT(train.micro_batch), "auto", 1, 1 << 20,
	 .words = automatic,
	 .help = "sequences that travel together; divides batch"},
	{"train.steps", FIELD_INTEGER, AT(train.steps), "100", 1, 99999999,
	 .help = "how long to train; or epochs"},
	{"train.epochs", FIELD_NUMBER, AT(train.epochs), NULL, 0, 1e6,
	 .help = "in place of steps; above 0"},
	{"train.learning_rate", FIELD_NUMBER, AT(train.learning_rate), "2e-4", 0, 1e3,
	 .help = "the highest"},
	{"train.schedule", FIELD_WORD, AT(train.schedule), "linear", .words = rates,
	 .help = "of the learning rate, as transformers'"},
	{"train.warmup", FIELD_INTEGER, AT(train.warmup), "0", 0, 1e9,
	 .help = "steps until the highest rate; the first has rate 0"},
	{"train.weight_decay", FIELD_NUMBER, AT(train.weight_decay), "0.01", 0, INFINITY,
	 .help = "AdamW's, decoupled"},
	{"train.betas", FIELD_NUMBERS, AT(train.betas), "[0.9, 0.999]", 0, 1,
	 .help = "AdamW's two; below 1"},
	{"train.epsilon", FIELD_NUMBER, AT(train.epsilon), "1e-8", 0, INFINITY,
	 .help = "AdamW's"},
	{"train.clip", FIELD_NUMBER, AT(train.clip), "1", 0, INFINITY,
	 .help = "the gradient's largest global norm; 0: off"},
	{"train.seed", FIELD_INTEGER, AT(train.seed), "1", 0, INFINITY,
	 .help = "of new adapters, dropout and the order of samples"},
	{"train.precision", FIELD_WORD, AT(train.precision), "fp32", .words = precisions,
	 .help = "of frozen weights and stored activations; bf16 where the CPU multiplies it"},
	{"train.weights", FIELD_WORD, AT(train.weights), "packed", .words = layouts,
	 .help = "bf16's: packed for both directions, or plain: half the memory, a little slower"},
	{"train.kernels", FIELD_WORD, AT(train.kernels), "auto", .words = kernels,
	 .help = "which library multiplies"},
	{"train.recompute", FIELD_WORD, AT(train.recompute), "none", .words = recomputes,
	 .help = "what is not kept for backward, but computed again: the MLP's inputs, or all of a block"},
	{"train.validate_every", FIELD_INTEGER, AT(train.validate_every), "0", 0, 1e9,
	 .help = "steps; 0: only at the ends"},
	{"train.checkpoint_every", FIELD_INTEGER, AT(train.checkpoint_every), "50", 0, 1e9,
	 .help = "steps; 0: only at the end"},
	{"train.trace", FIELD_INTEGER, AT(train.trace), "0", 0, 1000,
	 .help = "last steps to write to trace.json, op by op, for ui.perfetto.dev; 0: none"},

	{"plan.solver", FIELD_TEXT, AT(plan.solver), .words = solvers,
	 .help = "who decides which node runs which blocks (without one: the best)"},
	{"plan.stages", FIELD_INTEGER, AT(plan.stages), NULL, 1, PLAN_STAGES_MAX,
	 .help = "how many (without it: the solver decides)"},
	{"plan.schedule", FIELD_TEXT, AT(plan.schedule), "eager", .words = schedules,
	 .help = "the order of forwards and backwards"},
	{"plan.layers", FIELD_TEXTS, AT(plan.layers),
	 .help = "blocks per node in file order, by hand: [4, 4, out]"},
	{"plan.overlap", FIELD_FLAG, AT(plan.overlap), "true",
	 .help = "transfers pass beside computing; false: for comparison"},
	{"plan.cuts", FIELD_LIST, AT(plan.cuts), .item_bytes = sizeof(struct plan_cut),
	 .help = "codecs inside ranks, for comparisons"},
	{"plan.cuts[].after_block", FIELD_INTEGER, CUT(after_block), NULL, 0, 1 << 20,
	 .required = true, .help = "from 0"},
	{"plan.cuts[].codec", FIELD_WORD, CUT(codec), .words = cut_codecs, .required = true,
	 .help = "what a link with this codec would do there"},
	{"plan.client_blocks", FIELD_INTEGER, AT(plan.client_blocks), NULL, 1, 1 << 20,
	 .help = "blocks that every client holds, with the embedding (without it: 1)"},

	{"emulate.links", FIELD_FLAG, AT(emulate.links), "false",
	 .help = "hold links to the declared numbers"},
	{"emulate.compute", FIELD_FLAG, AT(emulate.compute), "false",
	 .help = "hold nodes to the declared numbers"},
	{"emulate.slowdown", FIELD_NUMBER, AT(emulate.slowdown), "1", 1e-6, 1e6,
	 .help = "stretch every declared time by this factor"},

	{"out", FIELD_PATH, AT(out),
	 .help = "the run directory (without it: runs/<name>-<UTC time>)"},
};

const struct schema job_schema = { rows, sizeof rows / sizeof *rows };
