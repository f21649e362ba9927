/*
 * tests/check_job.c - topology files: the real table, the checks that span several keys, what
 * is not built yet, and that the resolved file reads back.
 *
 * links: launch
 */
#include "launch/launch.h"
#include "tests/folder.h"
#include "tests/suite.h"

#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct job job;

static void set_up(void)
{
	folder_open();
	/* Messages then begin with t.yaml alone. */
	ck_assert_int_eq(chdir(folder), 0);
}

static void tear_down(void)
{
	job_release(&job);
	ck_assert_int_eq(chdir("/"), 0);
	folder_close();
}

/* Reads text as t.yaml into job; returns what was said. */
static const char *said(const char *text, const char *const *overrides, int count)
{
	int rc;

	job_release(&job);
	ck_assert_int_eq(file_write("t.yaml", text, strlen(text)), 0);
	error_clear();
	error_hold();
	rc = job_read(&job, "t.yaml", overrides, count);
	ck_assert_int_eq(rc, error_text()[0] ? -1 : 0);
	ck_assert_int_eq(error_code(), rc ? EXIT_CONFIG : 0);
	return error_text();
}

static const char small[] = "nodes: [{name: a}]\n"
			    "model: {path: m}\n";

/* -- what is read -------------------------------------------------------------------------- */

START_TEST(a_small_file_gets_the_documented_defaults)
{
	ck_assert_str_eq(said(small, NULL, 0), "");
	ck_assert_int_eq(job.version, 1);
	ck_assert_str_eq(job.cluster.name, "t");
	ck_assert_int_eq(job.cluster.nodes.count, 1);
	ck_assert_str_eq(cluster_node(&job.cluster, 0)->name, "a");
	ck_assert_str_eq(cluster_node(&job.cluster, 0)->device, "cpu");
	ck_assert_int_eq(cluster_node(&job.cluster, 0)->role, ROLE_SERVER);
	ck_assert_double_eq(cluster_node(&job.cluster, 0)->memory_bytes, 0);
	ck_assert_double_eq(cluster_node(&job.cluster, 0)->compute_flops, 0);
	ck_assert_int_eq(cluster_node(&job.cluster, 0)->cores, 0);
	ck_assert_double_eq(job.cluster.standard.bandwidth_bytes_s, 0);
	ck_assert_double_eq(job.cluster.standard.latency_s, 0);
	ck_assert_int_eq(job.cluster.standard.codec, CODEC_NONE);
	ck_assert_str_eq(job.model, in_folder("m"));
	ck_assert_int_eq(job.lora.rank, 8);
	ck_assert_double_eq(job.lora.alpha, 16);
	ck_assert_double_eq(job.lora.dropout, 0);
	ck_assert(!job.lora.rslora);
	ck_assert_str_eq(job.lora.targets.item[0], "attention");
	ck_assert_ptr_null(job.lora.init);
	ck_assert(!job.lora.rank_given && !job.lora.alpha_given && !job.lora.dropout_given);
	ck_assert(!job.lora.rslora_given && !job.lora.targets_given);
	ck_assert_ptr_null(job.data.train);
	ck_assert_int_eq(job.data.sequence, 0);
	ck_assert_int_eq(job.data.mask, MASK_AUTO);
	ck_assert(job.data.shuffle);
	ck_assert_int_eq(job.train.batch, 32);
	ck_assert_int_eq(job.train.micro_batch, 0);
	ck_assert_int_eq(job.train.steps, 100);
	ck_assert_double_eq(job.train.epochs, 0);
	ck_assert_double_eq(job.train.learning_rate, 2e-4);
	ck_assert_int_eq(job.train.schedule, RATE_LINEAR);
	ck_assert_int_eq(job.train.warmup, 0);
	ck_assert_double_eq(job.train.weight_decay, 0.01);
	ck_assert_int_eq(job.train.betas.count, 2);
	ck_assert_double_eq(job.train.betas.item[0], 0.9);
	ck_assert_double_eq(job.train.betas.item[1], 0.999);
	ck_assert_double_eq(job.train.epsilon, 1e-8);
	ck_assert_double_eq(job.train.clip, 1);
	ck_assert_int_eq(job.train.seed, 1);
	ck_assert_int_eq(job.train.precision, PRECISION_FP32);
	ck_assert_int_eq(job.train.kernels, KERNELS_AUTO);
	ck_assert_int_eq(job.train.validate_every, 0);
	ck_assert_int_eq(job.train.checkpoint_every, 50);
	ck_assert_ptr_null(job.plan.solver);
	ck_assert_int_eq(job.plan.stages, 0);
	ck_assert_str_eq(job.plan.schedule, "eager");
	ck_assert(job.plan.overlap);
	ck_assert_int_eq(job.plan.cuts.count, 0);
	ck_assert(!job.emulate.links && !job.emulate.compute);
	ck_assert_double_eq(job.emulate.slowdown, 1);
	ck_assert_int_eq(job.plan.layers.count, 0);
	ck_assert_ptr_null(job.out);
}
END_TEST

static const char large[] =
	"version: 1\n"
	"name: campus\n"
	"nodes:\n"
	"  - {name: library, host: 10.20.0.11, device: cpu, cores: 4, memory: 8 GiB,\n"
	"     compute: 900 GFLOPS, model: /copy, role: server, nic: eth0}\n"
	"  - {name: lab, memory: 512 MB, compute: 3.56 TFLOPS, nic: eth0}\n"
	"  - {name: the attic, compute: 1 TFLOPS}\n"
	"links:\n"
	"  default: {bandwidth: 400 Mbit/s, latency: 2 ms, codec: int4}\n"
	"  between:\n"
	"    - {nodes: [library, lab], bandwidth: 50 MB/s, latency: 5 ms, codec: none}\n"
	"    - {from: lab, to: library, bandwidth: 1 Gbit/s}\n"
	"    - {from: library, to: lab, latency: 1 us, codec: int8}\n"
	"    - {nodes: [lab, \"the attic\"], bandwidth: unlimited, latency: 0 s, codec: bf16}\n"
	"    - {nodes: [library, the attic], trace: wifi.csv}\n"
	"model: {path: m}\n"
	"lora: {rank: 4, alpha: 8, dropout: 0.1, rslora: true, targets: [q_proj, v_proj],\n"
	"       init: before}\n"
	"data: {train: a.jsonl, valid: b, sequence: 128, mask: prompt, shuffle: false}\n"
	"train: {batch: 12, micro_batch: 3, epochs: 2.5, learning_rate: 3e-4,\n"
	"        schedule: cosine, warmup: 7, weight_decay: 0, betas: [0.8, 0.95],\n"
	"        epsilon: 1e-6, clip: 0,\n"
	"        seed: 9007199254740993, precision: fp32, kernels: openblas,\n"
	"        validate_every: 5, checkpoint_every: 0}\n"
	"plan: {solver: uniform, stages: 2, schedule: gpipe, layers: [6, out, 0],\n"
	"       overlap: false, cuts: [{after_block: 3, codec: int8},\n"
	"       {after_block: 0, codec: int4}]}\n"
	"emulate: {links: true, compute: true, slowdown: 12.5}\n"
	"out: runs/one\n";

START_TEST(every_key_reaches_its_place)
{
	const struct link *link;
	const struct plan_cut *cut;

	ck_assert_str_eq(said(large, NULL, 0), "");
	link = job.cluster.links.item;
	ck_assert_str_eq(job.cluster.name, "campus");
	ck_assert_int_eq(job.cluster.nodes.count, 3);
	ck_assert_str_eq(cluster_node(&job.cluster, 0)->host, "10.20.0.11");
	ck_assert_int_eq(cluster_node(&job.cluster, 0)->cores, 4);
	ck_assert_str_eq(cluster_node(&job.cluster, 0)->model, "/copy");
	ck_assert_double_eq(cluster_node(&job.cluster, 1)->memory_bytes, 512e6);
	ck_assert_double_eq(cluster_node(&job.cluster, 1)->compute_flops, 3.56e12);
	ck_assert_int_eq(cluster_find(&job.cluster, "the attic"), 2);
	ck_assert_double_eq(job.cluster.standard.bandwidth_bytes_s, 50e6);
	ck_assert_double_eq(job.cluster.standard.latency_s, 0.002);
	ck_assert_int_eq(job.cluster.standard.codec, CODEC_INT4);
	ck_assert_str_eq(cluster_node(&job.cluster, 0)->nic, "eth0");
	ck_assert_ptr_null(cluster_node(&job.cluster, 2)->nic);
	ck_assert_int_eq(job.cluster.links.count, 5);
	ck_assert_int_eq(link[0].nodes.count, 2);
	ck_assert(link[0].bandwidth_given && link[0].latency_given && link[0].codec_given);
	ck_assert_int_eq(link[0].codec, CODEC_NONE);
	ck_assert(link[1].bandwidth_given && !link[1].latency_given && !link[1].codec_given);
	ck_assert(!link[2].bandwidth_given && link[2].latency_given && link[2].codec_given);
	ck_assert_int_eq(link[2].codec, CODEC_INT8);
	ck_assert(link[3].bandwidth_given && link[3].latency_given);
	ck_assert_double_eq(link[3].bandwidth_bytes_s, 0);
	ck_assert_int_eq(link[3].codec, CODEC_BF16);
	ck_assert(!link[4].bandwidth_given && !link[4].latency_given && !link[4].codec_given);
	ck_assert_ptr_null(link[3].trace);
	ck_assert_str_eq(link[4].trace, in_folder("wifi.csv"));
	ck_assert_double_eq(link[0].bandwidth_bytes_s, 50e6);
	ck_assert_str_eq(link[1].from, "lab");
	ck_assert_str_eq(link[1].to, "library");
	ck_assert_double_eq(link[2].latency_s, 1e-6);
	ck_assert_int_eq(job.lora.rank, 4);
	ck_assert_double_eq(job.lora.alpha, 8);
	ck_assert_double_eq(job.lora.dropout, 0.1);
	ck_assert(job.lora.rslora);
	ck_assert_int_eq(job.lora.targets.count, 2);
	ck_assert_str_eq(job.lora.init, in_folder("before"));
	ck_assert(job.lora.rank_given && job.lora.alpha_given && job.lora.dropout_given);
	ck_assert(job.lora.rslora_given && job.lora.targets_given);
	ck_assert_str_eq(job.data.valid, in_folder("b"));
	ck_assert_int_eq(job.data.sequence, 128);
	ck_assert_int_eq(job.data.mask, MASK_PROMPT);
	ck_assert(!job.data.shuffle);
	ck_assert_int_eq(job.train.batch, 12);
	ck_assert_int_eq(job.train.micro_batch, 3);
	ck_assert_int_eq(job.train.steps, 0);
	ck_assert_double_eq(job.train.epochs, 2.5);
	ck_assert_int_eq(job.train.schedule, RATE_COSINE);
	ck_assert_int_eq(job.train.warmup, 7);
	ck_assert_double_eq(job.train.betas.item[1], 0.95);
	ck_assert_double_eq(job.train.clip, 0);
	ck_assert_int_eq(job.train.seed, 9007199254740993);
	ck_assert_int_eq(job.train.kernels, KERNELS_OPENBLAS);
	ck_assert_int_eq(job.train.validate_every, 5);
	ck_assert_int_eq(job.train.checkpoint_every, 0);
	ck_assert_str_eq(job.plan.solver, "uniform");
	ck_assert_int_eq(job.plan.stages, 2);
	ck_assert_str_eq(job.plan.schedule, "gpipe");
	ck_assert_str_eq(job.plan.layers.item[1], "out");
	ck_assert(!job.plan.overlap);
	cut = job.plan.cuts.item;
	ck_assert_int_eq(job.plan.cuts.count, 2);
	ck_assert_int_eq(cut[0].after_block, 3);
	ck_assert_int_eq(cut[0].codec, CODEC_INT8);
	ck_assert_int_eq(cut[1].after_block, 0);
	ck_assert_int_eq(cut[1].codec, CODEC_INT4);
	ck_assert(job.emulate.links && job.emulate.compute);
	ck_assert_double_eq(job.emulate.slowdown, 12.5);
	ck_assert_str_eq(job.out, in_folder("runs/one"));
}
END_TEST

static char *written(void)
{
	struct text text = {0};
	char *copy;

	config_write(&job.config, &job, &text);
	copy = arena_copy(&arena, text.data, text.bytes);
	text_release(&text);
	return copy;
}

START_TEST(the_resolved_file_reads_back)
{
	const char *text[] = { small, large };

	for (int i = 0; i < 2; i++) {
		char *first;

		ck_assert_str_eq(said(text[i], NULL, 0), "");
		first = written();
		ck_assert_str_eq(said(first, NULL, 0), "");
		ck_assert_str_eq(written(), first);
		ck_assert_int_eq(job.train.steps, i ? 0 : 100);
		ck_assert_int_eq(job.train.seed, i ? 9007199254740993 : 1);
		ck_assert_str_eq(job.model, in_folder("m"));
	}
}
END_TEST

START_TEST(the_topologies_of_the_repository_are_sound)
{
	glob_t found;

	ck_assert_int_eq(glob(TESTS_FOLDER "/../topologies/*.yaml", 0, NULL, &found), 0);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		char *first;

		error_clear();
		error_hold();
		ck_assert_msg(job_read(&job, found.gl_pathv[i], NULL, 0) == 0, "%s",
			      error_text());
		first = written();
		ck_assert_str_eq(said(first, NULL, 0), "");
		ck_assert_str_eq(written(), first);
		job_release(&job);
	}
	globfree(&found);
}
END_TEST

START_TEST(the_name_is_the_files)
{
	static const char *const path[] = { "sub.d/lab", "lab.yml", "a.b.yaml", ".yaml" };
	static const char *const name[] = { "lab", "lab", "a.b", ".yaml" };

	ck_assert_int_eq(folder_make("sub.d"), 0);
	for (int i = 0; i < 4; i++) {
		ck_assert_int_eq(file_write(path[i], small, strlen(small)), 0);
		ck_assert_int_eq(job_read(&job, path[i], NULL, 0), 0);
		ck_assert_str_eq(job.cluster.name, name[i]);
		job_release(&job);
	}
}
END_TEST

/* -- what is refused ----------------------------------------------------------------------- */

START_TEST(a_file_with_many_errors_reports_all)
{
	ck_assert_str_eq(said(
		"nodes:\n"
		"  - {name: library, memory: 8 GB, compute: 900 Gflop}\n"
		"  - {name: lab, device: \"cuda:0\"}\n"
		"  - {name: library, device: tpu}\n"
		"links:\n"
		"  between:\n"
		"    - nodes: [library, lab]\n"
		"      bandwidth: 10 Gbs\n"
		"    - {nodes: [lab, libary], latancy: 5 ms}\n"
		"    - {from: lab, to: lab}\n"
		"    - {nodes: [lab, library]}\n"
		"    - {nodes: [lab, library, x]}\n"
		"    - {nodes: [lab, library], to: lab}\n"
		"    - {from: lab}\n"
		"    - {bandwidth: 1 MB/s}\n"
		"    - {from: attic, to: {}}\n"
		"model: {path: m}\n"
		"lora: {rank: 0, dropout: 1}\n"
		"train: {batch: 10, micro_batch: 4, steps: 5, epochs: 1, betas: [0.9, 1]}\n"
		"plan: {layers: [0, 3, x, 4], stages: 9}\n", NULL, 0),
		"t.yaml:2:44: error: nodes[0].compute: \"900 Gflop\" is not a speed (did "
		"you mean \"900 GFLOPS\"?)\n"
		"      2 |   - {name: library, memory: 8 GB, compute: 900 Gflop}\n"
		"        |                                            ^~~~~~~~~\n"
		"t.yaml:8:18: error: links.between[0].bandwidth: \"10 Gbs\" is not a rate "
		"(did you mean \"10 Gbit/s\" or \"10 GB/s\"?) (or \"unlimited\")\n"
		"      8 |       bandwidth: 10 Gbs\n"
		"        |                  ^~~~~~\n"
		"t.yaml:9:30: error: unknown key \"latancy\" in links.between[1] (did you "
		"mean \"latency\"?)\n"
		"      9 |     - {nodes: [lab, libary], latancy: 5 ms}\n"
		"        |                              ^~~~~~~\n"
		"t.yaml:16:25: error: links.between[8].to: must be a text, not a map of "
		"keys\n"
		"     16 |     - {from: attic, to: {}}\n"
		"        |                         ^\n"
		"t.yaml:18:14: error: lora.rank: \"0\" is out of range, it must be between "
		"1 and 65536\n"
		"     18 | lora: {rank: 0, dropout: 1}\n"
		"        |              ^\n"
		"t.yaml:4:12: error: nodes[2].name: duplicate node name \"library\" (first "
		"at line 2)\n"
		"      4 |   - {name: library, device: tpu}\n"
		"        |            ^~~~~~~\n"
		"t.yaml:3:25: error: nodes[1].device: \"cuda:0\" is not built yet (built: "
		"cpu)\n"
		"      3 |   - {name: lab, device: \"cuda:0\"}\n"
		"        |                         ^~~~~~~~\n"
		"t.yaml:4:29: error: nodes[2].device: \"tpu\" is no device (cpu or "
		"cuda:N)\n"
		"      4 |   - {name: library, device: tpu}\n"
		"        |                             ^~~\n"
		"t.yaml:9:21: error: links.between[1].nodes[1]: there is no node "
		"\"libary\" (did you mean \"library\"?)\n"
		"      9 |     - {nodes: [lab, libary], latancy: 5 ms}\n"
		"        |                     ^~~~~~\n"
		"t.yaml:10:23: error: links.between[2].to: a link joins two nodes, not "
		"\"lab\" to itself\n"
		"     10 |     - {from: lab, to: lab}\n"
		"        |                       ^~~\n"
		"t.yaml:12:15: error: links.between[4].nodes: must name two nodes, not 3\n"
		"     12 |     - {nodes: [lab, library, x]}\n"
		"        |               ^\n"
		"t.yaml:13:15: error: links.between[5].nodes: takes the place of from and "
		"to\n"
		"     13 |     - {nodes: [lab, library], to: lab}\n"
		"        |               ^\n"
		"t.yaml:14:7: error: links.between[6]: has from without to\n"
		"     14 |     - {from: lab}\n"
		"        |       ^\n"
		"t.yaml:15:7: error: links.between[7]: needs nodes: [a, b], or from and "
		"to\n"
		"     15 |     - {bandwidth: 1 MB/s}\n"
		"        |       ^\n"
		"t.yaml:11:7: error: links.between[3]: the link library - lab is given "
		"twice (first as links.between[0])\n"
		"     11 |     - {nodes: [lab, library]}\n"
		"        |       ^\n"
		"t.yaml:18:26: error: lora.dropout: must be below 1\n"
		"     18 | lora: {rank: 0, dropout: 1}\n"
		"        |                          ^\n"
		"t.yaml:19:33: error: train.micro_batch: 4 does not divide train.batch "
		"(10)\n"
		"     19 | train: {batch: 10, micro_batch: 4, steps: 5, epochs: 1, betas: "
		"[0.9, 1]}\n"
		"        |                                 ^\n"
		"t.yaml:19:54: error: train.epochs: takes the place of train.steps: give "
		"one of the two\n"
		"     19 | train: {batch: 10, micro_batch: 4, steps: 5, epochs: 1, betas: "
		"[0.9, 1]}\n"
		"        |                                                      ^\n"
		"t.yaml:19:70: error: train.betas[1]: must be below 1\n"
		"     19 | train: {batch: 10, micro_batch: 4, steps: 5, epochs: 1, betas: "
		"[0.9, 1]}\n"
		"        |                                                                 "
		"     ^\n"
		"t.yaml:20:38: error: plan.stages: 9 stages need as many nodes, there are "
		"3\n"
		"     20 | plan: {layers: [0, 3, x, 4], stages: 9}\n"
		"        |                                      ^\n"
		"t.yaml:20:23: error: plan.layers[2]: \"x\" is neither a number of blocks "
		"nor out\n"
		"     20 | plan: {layers: [0, 3, x, 4], stages: 9}\n"
		"        |                       ^\n"
		"t.yaml:20:17: error: plan.layers[0]: only the last stage can be without a "
		"block (head alone)\n"
		"     20 | plan: {layers: [0, 3, x, 4], stages: 9}\n"
		"        |                 ^\n"
		"t.yaml:20:16: error: plan.layers: has 4 entries for 3 nodes\n"
		"     20 | plan: {layers: [0, 3, x, 4], stages: 9}\n"
		"        |                ^\n");
}
END_TEST

/* What stands after small, and the first line that is said. */
static const struct { const char *line, *error; } bad[] = {
	{"version: 2", "3:10: error: version: \"2\" is out of range, it must be 1"},
	{"name: a/b", "3:7: error: name: it names a folder, so it cannot hold a slash"},
	{"name: ..", ""},
	{"lora: {rank_pattern: {c_attn: 4}}", "3:22: error: lora.rank_pattern: not built yet: go on from an adapter that has it "
					      "(lora.init)"},
	{"lora: {alpha_pattern: {c_attn: 4}}", "3:23: error: lora.alpha_pattern: not built yet: go on from an adapter that has it "
					       "(lora.init)"},
	{"lora: {targets: []}", "3:17: error: lora.targets: names no module"},
	{"lora: {dropout: 1}", "3:17: error: lora.dropout: must be below 1"},
	{"lora: {dropout: -0.1}",
	 "3:17: error: lora.dropout: \"-0.1\" is out of range, it must be between 0 and 1"},
	{"lora: {rank: 0}",
	 "3:14: error: lora.rank: \"0\" is out of range, it must be between 1 and 65536"},
	{"train: {micro_batch: 5}",
	 "3:22: error: train.micro_batch: 5 does not divide train.batch (32)"},
	{"train: {micro_batch: 64}",
	 "3:22: error: train.micro_batch: 64 does not divide train.batch (32)"},
	{"train: {micro_batch: 8}", ""},
	{"train: {micro_batch: auto}", ""},
	{"train: {batch: 0, micro_batch: 5}",
	 "3:16: error: train.batch: \"0\" is out of range, it must be between 1 and 1048576"},
	{"train: {steps: 5, epochs: 1}",
	 "3:27: error: train.epochs: takes the place of train.steps: give one of the two"},
	{"train: {epochs: 0}", "3:17: error: train.epochs: must be above 0"},
	{"train: {steps: 0}",
	 "3:16: error: train.steps: \"0\" is out of range, it must be between 1 and "
	 "99999999"},
	{"train: {warmup: -1}",
	 "3:17: error: train.warmup: \"-1\" is out of range, it must be between 0 and "
	 "1000000000"},
	{"train: {betas: [0.9]}", "3:16: error: train.betas: must be two numbers, not 1"},
	{"train: {betas: [0.9, 0.9, 0.9]}",
	 "3:16: error: train.betas: must be two numbers, not 3"},
	{"train: {betas: [1, 0.9]}", "3:17: error: train.betas[0]: must be below 1"},
	{"train: {betas: [0.9, 1.5]}",
	 "3:22: error: train.betas: \"1.5\" is out of range, it must be between 0 and 1"},
	{"plan: {layers: [2]}", ""},
	{"plan: {layers: 2}", ""},
	{"plan: {layers: [0]}", ""},
	{"plan: {layers: [2, 2]}", "3:16: error: plan.layers: has 2 entries for 1 node"},
	{"plan: {layers: [in]}",
	 "3:17: error: plan.layers[0]: \"in\" is neither a number of blocks nor out"},
	{"plan: {layers: [-1]}",
	 "3:17: error: plan.layers[0]: \"-1\" is neither a number of blocks nor out"},
	{"plan: {layers: [out]}", "3:16: error: plan.layers: leaves all nodes out"},
	{"plan: {layers: []}", "3:16: error: plan.layers: leaves all nodes out"},
	{"plan: {stages: 2}",
	 "3:16: error: plan.stages: 2 stages need as many nodes, there is 1"},
	{"plan: {solver: exact}", ""},
	{"plan: {solver: search}", ""},
	{"plan: {solver: bottleneck}", ""},
	{"plan: {solver: exakt}", "3:16: error: plan.solver: \"exakt\" is none of exact, search, bottleneck, "
				  "proportional, uniform, manual (did you mean \"exact\"?)"},
	{"plan: {schedule: eager}", ""},
	{"plan: {schedule: eagre}", "3:18: error: plan.schedule: \"eagre\" is none of eager, "
				    "1f1b, gpipe (did you mean \"eager\"?)"},
	{"plan: {cuts: [{after_block: 3, codec: int8}]}", ""},
	{"plan: {cuts: []}", ""},
	{"plan: {cuts: [{after_block: 3, codec: none}, {after_block: 2, codec: int4}]}", ""},
	{"plan: {cuts: [{after_block: 3, codec: auto}]}",
	 "3:39: error: plan.cuts[0].codec: \"auto\" is none of none, bf16, int8, int4"},
	{"plan: {cuts: [{after_block: -1, codec: int8}]}",
	 "3:29: error: plan.cuts[0].after_block: \"-1\" is out of range, it must be between 0 "
	 "and 1048576"},
	{"plan: {cuts: [{codec: int8}]}",
	 "3:15: error: missing key \"after_block\" in plan.cuts[0]"},
	{"plan: {cuts: [{after_block: 3}]}",
	 "3:15: error: missing key \"codec\" in plan.cuts[0]"},
	{"plan: {cuts: [{after_block: 3, codec: int8}, {after_block: 3, codec: int4}]}",
	 "3:60: error: plan.cuts[1].after_block: block 3 has a codec already (plan.cuts[0])"},
	{"plan: {client_blocks: 1}",
	 "3:23: error: plan.client_blocks: no node has role: client"},
	{"plan: {client_blocks: 0}",
	 "3:23: error: plan.client_blocks: \"0\" is out of range, it must be between 1 and 1048576"},
	{"emulate: {links: true}", ""},
	{"emulate: {compute: true}",
	 "3:20: error: emulate.compute: nodes[0] declares no compute to be held to"},
	{"emulate: {slowdown: 2}", ""},
	{"emulate: {slowdown: 0.5}", ""},
	{"emulate: {slowdown: 0}", "3:21: error: emulate.slowdown: \"0\" is out of range, it must "
				   "be between 1e-06 and 1000000"},
	{"emulate: {slowdown: 1e9}", "3:21: error: emulate.slowdown: \"1e9\" is out of range, it "
				     "must be between 1e-06 and 1000000"},
	{"data: {mask: assistant-only}", ""},
	{"data: {template: chatml}", ""},
	{"data: {template: chatlm}", "3:18: error: data.template: \"chatlm\" is none of chatml, qwen, qwen2, qwen3, llama2, "
	 "llama3, llama3.1, mistral, mistral-v1, mistral-v3, gemma, gemma3, phi, zephyr, alpaca "
	 "(did you mean \"chatml\"?)"},
	{"data: {columns: {text: body}}", ""},
	{"data: {columns: {promt: question}}",
	 "3:18: error: unknown key \"promt\" in data.columns (did you mean \"prompt\"?)"},
	{"train: {precision: bf16, kernels: openblas}",
	 "3:35: error: train.kernels: multiplies fp32 alone, but train.precision is bf16 (auto "
	 "and onednn multiply both)"},
	{"links: {default: {codec: int8}}", ""},
	{"links: {default: {codec: auto}}", ""},
	{"links: {default: {codec: int3}}",
	 "3:26: error: links.default.codec: \"int3\" is none of none, bf16, int8, int4, auto "
	 "(did you mean \"int8\"?)"},
	{"links: {default: {bandwidth: unlimited}, between: []}", ""},
	{"links: {default: {bandwidth: 0 Mbit/s}}",
	 "3:30: error: links.default.bandwidth: \"0 Mbit/s\" is out of range, it must be "
	 "between 8 bit/s and 1000 Tbit/s"},
	{"links: {between: [{nodes: a}]}",
	 "3:27: error: links.between[0].nodes: must name two nodes, not 1"},
	{"links: {between: [{to: a}]}", "3:19: error: links.between[0]: has to without from"},
};

START_TEST(a_bad_key_is_refused)
{
	const char *error = said(arena_format(&arena, "%s%s\n", small, bad[_i].line), NULL, 0);
	size_t line = strcspn(error, "\n");

	if (!bad[_i].error[0])
		ck_assert_str_eq(error, "");
	else
		ck_assert_str_eq(arena_copy(&arena, error, line),
				 arena_format(&arena, "t.yaml:%s", bad[_i].error));
}
END_TEST

/* A node's further keys, and what is said. */
static const struct { const char *keys, *error; } bad_node[] = {
	{"role: clint", "nodes[0].role: \"clint\" is none of server, client (did you mean \"client\"?)"},
	{"device: \"cuda:0\"", "nodes[0].device: \"cuda:0\" is not built yet (built: cpu)"},
	{"device: \"cuda:\"", "nodes[0].device: \"cuda:\" is no device (cpu or cuda:N)"},
	{"device: \"cuda:x\"", "nodes[0].device: \"cuda:x\" is no device (cpu or cuda:N)"},
	{"cores: 0", "nodes[0].cores: \"0\" is out of range, it must be between 1 and 65536"},
	{"compute: 0 FLOPS",
	 "nodes[0].compute: \"0 FLOPS\" is out of range, it must be between 1 FLOPS and "
	 "1000 PFLOPS"},
	{"memory: 2e6 GiB",
	 "nodes[0].memory: \"2e6 GiB\" is out of range, it must be between 1 B and "
	 "1024 TiB"},
	{"name: b", "duplicate key \"name\" (first at line 2)"},
};

START_TEST(a_bad_node_is_refused)
{
	const char *text = arena_format(&arena, "nodes:\n  - {name: a, %s}\nmodel: {path: m}\n",
					bad_node[_i].keys);
	const char *error = said(text, NULL, 0), *message = strstr(error, ": error: ");

	ck_assert_msg(message, "%s: %s", text, error);
	message += strlen(": error: ");
	ck_assert_str_eq(arena_copy(&arena, message, strcspn(message, "\n")),
			 bad_node[_i].error);
}
END_TEST

/* What a pair of nodes and the link between them say, and the first line of what is said. */
static const struct { const char *lines, *error; } bad_link[] = {
	{"links: {between: [{nodes: [a, b], trace: t.csv}]}\nemulate: {links: true}", ""},
	{"links: {between: [{nodes: [a, b], trace: t.csv}]}",
	 "3:42: error: links.between[0].trace: a trace is followed with emulate.links: true only"},
	{"links: {between: [{nodes: [a, b], trace: t.csv, bandwidth: 1 MB/s}]}\n"
	 "emulate: {links: true}",
	 "3:42: error: links.between[0].trace: takes the place of bandwidth"},
	{"links: {between: [{nodes: [a, b], trace: t.csv, bandwidth: unlimited}]}\n"
	 "emulate: {links: true}",
	 "3:42: error: links.between[0].trace: takes the place of bandwidth"},
	/* The default's bandwidth is another entry's. */
	{"links: {default: {bandwidth: 1 MB/s}, between: [{nodes: [a, b], trace: t.csv}]}\n"
	 "emulate: {links: true}", ""},
	{"links: {between: [{nodes: [a, b], bandwidth: 0 Mbit/s}]}",
	 "3:46: error: links.between[0].bandwidth: \"0 Mbit/s\" is out of range, it must be "
	 "between 8 bit/s and 1000 Tbit/s"},
	{"links: {between: [{nodes: [a, b], codec: auto}]}", ""},
	{"links: {between: [{nodes: [a, b], codec: autom}]}",
	 "3:42: error: links.between[0].codec: \"autom\" is none of none, bf16, int8, int4, auto "
	 "(did you mean \"auto\"?)"},
	{"emulate: {compute: true}",
	 "3:20: error: emulate.compute: nodes[1] declares no compute to be held to"},
};

START_TEST(a_bad_link_is_refused)
{
	const char *error = said(arena_format(&arena, "nodes: [{name: a, compute: 1 GFLOPS}, "
					      "{name: b}]\nmodel: {path: m}\n%s\n",
					      bad_link[_i].lines), NULL, 0);
	size_t line = strcspn(error, "\n");

	if (!bad_link[_i].error[0])
		ck_assert_str_eq(error, "");
	else
		ck_assert_str_eq(arena_copy(&arena, error, line),
				 arena_format(&arena, "t.yaml:%s", bad_link[_i].error));
}
END_TEST

/* A node whose compute is wrong has been told so: it is not said to lack one too. */
START_TEST(what_is_wrong_is_not_missing)
{
	ck_assert_ptr_null(strstr(said("nodes: [{name: a, compute: fast}]\nmodel: {path: m}\n"
				       "emulate: {compute: true}\n", NULL, 0),
				  "declares no compute"));
	ck_assert_str_ne(error_text(), "");
}
END_TEST

START_TEST(without_nodes_or_a_model_there_is_no_job)
{
	ck_assert_str_eq(said("links: {between: [{nodes: [a, b]}]}\n", NULL, 0),
			 "t.yaml:1:1: error: missing key \"nodes\"\n"
			 "      1 | links: {between: [{nodes: [a, b]}]}\n"
			 "        | ^\n"
			 "t.yaml:1:1: error: missing key \"model.path\"\n"
			 "      1 | links: {between: [{nodes: [a, b]}]}\n"
			 "        | ^\n");
	ck_assert_str_eq(said("nodes: []\nmodel: {}\n", NULL, 0),
			 "t.yaml:2:8: error: missing key \"path\" in model\n"
			 "      2 | model: {}\n"
			 "        |        ^\n"
			 "t.yaml:1:8: error: nodes: there must be at least one\n"
			 "      1 | nodes: []\n"
			 "        |        ^\n");
	ck_assert_str_eq(said("nodes: [{}, {name: b}]\nmodel: {path: m}\n"
			      "links: {between: [{nodes: [a, b]}]}\n", NULL, 0),
			 "t.yaml:1:9: error: missing key \"name\" in nodes[0]\n"
			 "      1 | nodes: [{}, {name: b}]\n"
			 "        |         ^\n");
}
END_TEST

START_TEST(a_section_that_is_no_map_is_one_error)
{
	ck_assert_str_eq(said("nodes: [{name: a}]\nmodel: m\n", NULL, 0),
			 "t.yaml:2:8: error: model: must be a map of keys, not a text\n"
			 "      2 | model: m\n"
			 "        |        ^\n");
}
END_TEST

START_TEST(a_missing_file_is_said_once)
{
	error_hold();
	ck_assert_int_eq(job_read(&job, "none.yaml", NULL, 0), -1);
	ck_assert_int_eq(error_code(), EXIT_INPUT);
	ck_assert_str_eq(error_text(), "edgepipe: error: cannot open 'none.yaml': "
				       "No such file or directory\n");
}
END_TEST

/* -- overrides ----------------------------------------------------------------------------- */

START_TEST(any_value_can_be_set)
{
	static const char *const set[] = {
		"nodes.0.memory=4GiB", "nodes[1].name=c", "plan.layers=[2,0]", "train.epochs=2",
		"train.steps=", "data.train=t.jsonl", "out=run", "links.default.latency=3 ms",
		"links.between=[{nodes: [a, c], bandwidth: 8 Mbit/s}]",
		"train.micro_batch=auto",
	};

	ck_assert_str_eq(said("nodes: [{name: a}, {name: b}]\nmodel: {path: m}\n"
			      "train: {steps: 9, micro_batch: 7}\n", set,
			      sizeof set / sizeof *set), "");
	ck_assert_double_eq(cluster_node(&job.cluster, 0)->memory_bytes, 0x1p32);
	ck_assert_str_eq(cluster_node(&job.cluster, 1)->name, "c");
	ck_assert_int_eq(job.plan.layers.count, 2);
	ck_assert_double_eq(job.train.epochs, 2);
	ck_assert_int_eq(job.train.steps, 0);
	ck_assert_int_eq(job.train.micro_batch, 0);
	ck_assert_str_eq(job.data.train, in_folder("t.jsonl"));
	ck_assert_str_eq(job.out, in_folder("run"));
	ck_assert_double_eq(job.cluster.standard.latency_s, 0.003);
	ck_assert_int_eq(job.cluster.links.count, 1);
}
END_TEST

START_TEST(errors_of_overrides_name_them)
{
	static const char *const set[] = {
		"train.batch=x", "nodes.1.name=a", "train.micro_batch=3", "nodes.2.name=c",
		"links.between=[{nodes: [a, z]}]", "plan.layers=[0,2,out]",
	};

	ck_assert_str_eq(said("nodes: [{name: a}, {name: b}]\nmodel: {path: m}\n", set,
			      sizeof set / sizeof *set),
		"edgepipe: error: --set 'nodes.2.name=c': nodes has 2 items (0 to 1), "
		"there is no 2\n"
		"edgepipe: error: --set 'train.batch=x': train.batch: \"x\" is not an integer "
		"(digits alone)\n"
		"edgepipe: error: --set 'nodes.1.name=a': nodes[1].name: duplicate node name "
		"\"a\" (first at line 1)\n"
		"edgepipe: error: --set 'links.between=[{nodes: [a, z]}]': "
		"links.between[0].nodes[1]: there is no node \"z\"\n"
		"edgepipe: error: --set 'plan.layers=[0,2,out]': plan.layers[0]: only the last "
		"stage can be without a block (head alone)\n"
		"edgepipe: error: --set 'plan.layers=[0,2,out]': plan.layers: has 3 entries "
		"for 2 nodes\n");
}
END_TEST

START_TEST(overrides_are_checked_together)
{
	static const char *const set[] = {
		"nodes.0.name=b", "plan.layers=[2,out]", "plan.stages=2",
	};

	ck_assert_str_eq(said("nodes: [{name: a}, {name: b}]\nmodel: {path: m}\n", set, 3),
		"t.yaml:1:27: error: nodes[1].name: duplicate node name \"b\" "
		"(nodes[0] has it)\n"
		"      1 | nodes: [{name: a}, {name: b}]\n"
		"        |                           ^\n"
		"edgepipe: error: --set 'plan.stages=2': plan.stages: plan.layers has 1 stage, "
		"not 2\n");
}
END_TEST

/* -- the table ----------------------------------------------------------------------------- */

/* Whether each of the names is a choice of a key. */
static void check_choices(const char *key, const char *const *names)
{
	int count = 0;

	for (; names[count]; count++) {
		const char *set = arena_format(&arena, "%s=%s", key, names[count]);

		ck_assert_str_eq(said(small, &set, 1), "");
	}
	ck_assert_int_ge(count, 2);
}

START_TEST(solvers_and_schedules_are_those_that_are_built)
{
	check_choices("plan.solver", solver_names());
	check_choices("plan.schedule", schedule_names());
	for (int i = 0; i < job_schema.count; i++) {
		const struct field *row = &job_schema.field[i];
		bool solver = strcmp(row->path, "plan.solver") == 0;

		if (!solver && strcmp(row->path, "plan.schedule") != 0)
			continue;
		for (const char *const *word = row->words; *word; word++) {
			const char *const *name = solver ? solver_names() : schedule_names();

			while (*name && strcmp(*name, *word) != 0)
				name++;
			ck_assert_msg(*name || (*word)[0] == '-', "%s %s", row->path, *word);
		}
	}
}
END_TEST

START_TEST(every_row_explains_itself)
{
	struct text text = {0};

	schema_help(&job_schema, &text);
	for (int i = 0; i < job_schema.count; i++) {
		const struct field *row = &job_schema.field[i];

		ck_assert_msg(row->help && row->help[0], "%s", row->path);
		ck_assert_ptr_nonnull(strstr(text.data, row->help));
	}
	for (const char *line = text.data; *line; line += strcspn(line, "\n") + 1)
		ck_assert_msg(strcspn(line, "\n") <= 110, "%.120s", line);
	ck_assert_ptr_nonnull(strstr(text.data, "\nemulate\n"
						"  links               hold links to the"));
	text_release(&text);
}
END_TEST

START_TEST(a_large_cluster_is_read_at_once)
{
	struct text text = {0};
	double start;

	text_add(&text, "model: {path: m}\nnodes:\n");
	for (int i = 0; i < 10000; i++)
		text_add(&text, "- {name: n%d}\n", i);
	text_add(&text, "links:\n between:\n");
	for (int i = 0; i < 50000; i++)
		text_add(&text, " - {nodes: [n%d, n%d]}\n", i % 10000,
			 (i + 1 + i / 10000) % 10000);
	start = computed_s();
	ck_assert_str_eq(said(text.data, NULL, 0), "");
	ck_assert_computed_lt(start, 5);
	ck_assert_int_eq(job.cluster.links.count, 50000);
	/* The same without the names that the links want: each is an error, few are shown. */
	text.data[strlen("model: {path: m}\nnodes:\n- {name: ")] = 'm';
	start = computed_s();
	said(text.data, NULL, 0);
	ck_assert_computed_lt(start, 5);
	ck_assert_uint_lt(strlen(error_text()), 20000);
	text_release(&text);
}
END_TEST

static TCase *cases(void)
{
	TCase *tests = tcase_create("job");

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, a_small_file_gets_the_documented_defaults);
	tcase_add_test(tests, every_key_reaches_its_place);
	tcase_add_test(tests, the_resolved_file_reads_back);
	tcase_add_test(tests, the_topologies_of_the_repository_are_sound);
	tcase_add_test(tests, the_name_is_the_files);
	tcase_add_test(tests, a_file_with_many_errors_reports_all);
	tcase_add_loop_test(tests, a_bad_key_is_refused, 0, sizeof bad / sizeof *bad);
	tcase_add_loop_test(tests, a_bad_node_is_refused, 0,
			    sizeof bad_node / sizeof *bad_node);
	tcase_add_loop_test(tests, a_bad_link_is_refused, 0, sizeof bad_link / sizeof *bad_link);
	tcase_add_test(tests, what_is_wrong_is_not_missing);
	tcase_add_test(tests, without_nodes_or_a_model_there_is_no_job);
	tcase_add_test(tests, a_section_that_is_no_map_is_one_error);
	tcase_add_test(tests, a_missing_file_is_said_once);
	tcase_add_test(tests, any_value_can_be_set);
	tcase_add_test(tests, errors_of_overrides_name_them);
	tcase_add_test(tests, overrides_are_checked_together);
	tcase_add_test(tests, solvers_and_schedules_are_those_that_are_built);
	tcase_add_test(tests, every_row_explains_itself);
	tcase_add_test(tests, a_large_cluster_is_read_at_once);
	return tests;
}

int main(void)
{
	Suite *suite = suite_create("job");

	suite_add_tcase(suite, cases());
	return run_suite(suite);
}
