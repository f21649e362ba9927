/*
 * model/ - what is trained: configurations and weights of Hugging Face directories, blocks, LoRA,
 * text, the optimizer's state on disk, and the runnable stage that the pipeline drives.
 *
 * It knows nothing of ranks. Letters are those of tensor/tensor.h.
 */
#ifndef EDGEPIPE_MODEL_H
#define EDGEPIPE_MODEL_H

#include "base/base.h"
#include "tensor/tensor.h"

/* -- safetensors.c ------------------------------------------------------------------------- */

/*
 * A strict reader: header at most 100 000 000 bytes, tensors contiguous from 0 without hole or
 * overlap, size == product of shape * dtype with checked products, no duplicate keys. The file is
 * mapped read-only and only what is looked at is read.
 */
#define SAFETENSORS_DIMS 8
struct safetensor {
	const char *name;
	enum dtype dtype;		/* a dtype we know; else see known */
	bool known;			/* false: dtype_text names a dtype that we cannot compute with */
	const char *dtype_text;
	int dims;
	long long shape[SAFETENSORS_DIMS];
	const void *data;		/* mapped; any alignment */
	size_t bytes;
};
struct safetensors {
	const char *path;
	struct safetensor *tensor;	/* in file order */
	int count;
	struct digest header_digest;
	/* private: the mapping */
	void *map;
	size_t map_bytes;
	struct arena arena;
	void *index;
};
/* Null after an error with the path, the tensor and the reason (EXIT_INPUT, EXIT_DATA). */
struct safetensors *safetensors_open(const char *path);
/* Gives the file's pages inside the first `bytes` bytes of a tensor back to the system; they can be read again. */
void safetensor_forget(const struct safetensor *tensor, size_t bytes);
const struct safetensor *safetensors_find(const struct safetensors *file, const char *name);
void safetensors_close(struct safetensors *file);

struct safetensors_entry {
	const char *name;
	enum dtype dtype;
	int dims;
	long long shape[SAFETENSORS_DIMS];
	const void *data;		/* host memory */
};
/* Writes and fsyncs a file, entries in the given order, 8-byte aligned data; metadata: pairs of
 * texts (key, value) ended by null, or null. -1 after an error. */
int safetensors_write(const char *path, const struct safetensors_entry *entry, int count,
		      const char *const *metadata);

/* The same, piece by piece: the header of these tensors, then their bytes in order with safetensors_put. Path must last.
 * Null after an error. safetensors_end fsyncs and closes. */
struct safetensors_writer;
struct safetensors_writer *safetensors_create(const char *path, const struct safetensor *const *tensor, int count,
					      const char *const *metadata);
int safetensors_put(struct safetensors_writer *writer, const void *data, size_t bytes);
int safetensors_end(struct safetensors_writer *writer);

/* -- config.c ------------------------------------------------------------------------------ */

enum rope_kind { ROPE_NONE, ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 };

struct family;

/* config.json, in old and new spellings, reduced to what the arithmetic needs. */
struct model_config {
	const struct family *family;
	const char *folder;		/* absolute */
	int blocks, width, heads, kv_heads, head_size, mlp, vocabulary, positions;
	float norm_epsilon;
	enum gelu gelu;			/* GPT-2 */
	bool tied;			/* the head is the embedding */
	bool qkv_bias, out_bias, mlp_bias, qk_norm;
	enum rope_kind rope;
	double rope_theta, rope_factor, rope_low, rope_high, rope_original;
	int *window;			/* per block; 0: none */
	int end_token;			/* -1: none is configured */
	bool own_dropout;		/* the base model's dropouts, which stay off */
	struct digest digest;		/* of the bytes of config.json */
	struct arena arena;
};
/*
 * Reads FOLDER/config.json. A field that changes the arithmetic and is not built is refused by
 * name; other people's harmless fields are ignored. Null after an error (EXIT_INPUT where the folder
 * or file is missing, EXIT_DATA for nonsense, EXIT_CONFIG for what is not built).
 */
struct model_config *model_config_read(const char *folder);
void model_config_free(struct model_config *config);
/* Number of parameters of the whole model (a tied head counts once). */
size_t model_parameters(const struct model_config *config);
/* Useful FLOPs of one block (or of the head with its loss) for one token in a sequence of T, forward
 * and backward together, as frozen linears (2+2 a weight) and causal attention (2TC + 4TC). */
double model_block_flops(const struct model_config *config, int T);
double model_block_forward_flops(const struct model_config *config, int T);	/* of those */
double model_head_flops(const struct model_config *config);
/*
 * What forward does not keep of a block, and backward computes again (train.recompute). mlp: what the activation reads,
 * from the stream behind attention. block: all but the block's input. In F32 gradients are the same bits at every level; in
 * BF16 what is computed again starts from a stored stream, which was rounded.
 */
enum recompute { RECOMPUTE_NONE, RECOMPUTE_MLP, RECOMPUTE_BLOCK };
const char *recompute_name(enum recompute level);
/* FLOPs of one block for one token in a sequence of T that a backward has besides. At the level of blocks the last
 * product's are not among them: nothing reads its result. */
double model_block_again_flops(const struct model_config *config, int T, enum recompute level);

/* -- family.c ------------------------------------------------------------------------------ */

/* The place of a tensor in a block or at the ends: one word for the same thing in all families. */
enum slot {
	SLOT_EMBED, SLOT_POSITIONS, SLOT_FINAL_NORM, SLOT_FINAL_NORM_BIAS, SLOT_HEAD,
	SLOT_NORM1, SLOT_NORM1_BIAS, SLOT_NORM2, SLOT_NORM2_BIAS,
	SLOT_QKV, SLOT_QKV_BIAS, SLOT_Q, SLOT_Q_BIAS, SLOT_K, SLOT_K_BIAS, SLOT_V, SLOT_V_BIAS,
	SLOT_Q_NORM, SLOT_K_NORM, SLOT_OUT, SLOT_OUT_BIAS,
	SLOT_GATE, SLOT_GATE_BIAS, SLOT_UP, SLOT_UP_BIAS, SLOT_DOWN, SLOT_DOWN_BIAS,
	SLOTS
};
/* A size by name, so that a row is the same for every model of a family. */
enum dim { DIM_NONE, DIM_WIDTH, DIM_VOCABULARY, DIM_POSITIONS, DIM_Q, DIM_KV, DIM_QKV, DIM_MLP,
	   DIM_HEAD_SIZE };

/*
 * One row per tensor of a family. It drives loading, checking, slicing, LoRA targets and memory
 * estimates. In the file a matrix is (rows, cols): (out, in), or (in, out) where transposed (GPT-2's
 * Conv1D). A vector has cols DIM_NONE.
 */
struct tensor_row {
	enum slot slot;
	const char *name;	/* after the prefix; in a block after "h.7." or "layers.7." */
	enum dim rows, cols;
	bool linear;		/* a linear inside blocks: LoRA may target it */
	bool transposed;
	bool (*present)(const struct model_config *config);	/* null: always */
};
struct family {
	const char *name;		/* "gpt2", "llama", "mistral", "qwen2", "qwen3": model_type */
	const char *architecture;	/* "GPT2LMHeadModel" */
	const char *prefix;		/* "transformer." / "model."; files may lack it */
	const char *block_prefix;	/* "h." / "layers." */
	const struct tensor_row *row;	/* ended by name null; SLOT_EMBED..SLOT_HEAD: the ends */
	const char *const *attention;	/* modules that `targets: attention` means, ended by null */
	/* Whether blocks are GPT-2's (else LLaMA's). */
	bool gpt2;
};
/* Null if unknown. */
const struct family *family_find(const char *model_type);
int family_names(const char **names, int room);			/* how many there are */
int dim_size(const struct model_config *config, enum dim dim);	/* 1 for DIM_NONE */
/* The row of a slot if this model has that tensor, else null. */
const struct tensor_row *model_row(const struct model_config *config, enum slot slot);
size_t row_elements(const struct model_config *config, const struct tensor_row *row);

/* -- weights.c ----------------------------------------------------------------------------- */

/* The weights of a model directory: model.safetensors, or shards with an index. */
struct weights {
	const struct model_config *config;
	struct safetensors **file;
	int files;
	struct digest digest;		/* over all headers */
	struct arena arena;
	void *index;			/* name -> tensor, for shards */
};
/* Opens (maps) the files; no tensor is read. Every tensor that the family's table asks for must be
 * there with its shape and a float dtype; others are ignored. Null after an error. */
struct weights *weights_open(const struct model_config *config);
/* The tensor of a slot (block is ignored for the ends). SLOT_HEAD of a tied model is the embedding.
 * Never null for a present row: weights_open has checked. */
const struct safetensor *weights_find(const struct weights *weights, enum slot slot, int block);
/*
 * Digest of the values of some blocks, of the embedding (with positions), and of the head (with the final norm; a tied
 * head is the embedding's). A sum over tensors, so that digests of disjoint parts add up to that of the whole.
 */
struct digest weights_digest(const struct weights *weights, int first_block, int blocks,
			     bool embedding, bool head);
/* Of one tensor, with its name. */
struct digest weights_digest_of(const struct weights *weights, enum slot slot, int block);
/* Gives all pages of the files back to the system; they can be read again. */
void weights_forget(const struct weights *weights);
void weights_close(struct weights *weights);

/* -- lora.c -------------------------------------------------------------------------------- */

/* The `lora` section of a job. */
struct lora_config {
	long long rank;
	double alpha, dropout;
	bool rslora;
	struct texts targets;	/* "attention", "all", or PEFT module names inside blocks */
	const char *init;	/* a PEFT adapter directory to go on from, or null */
	/* Which keys the job gave itself: with init, a given key that differs is an error. */
	bool rank_given, alpha_given, dropout_given, rslora_given, targets_given;
};

/* Numbers of modules. key: a module's name, as the end of its path, or a regular expression for such an end; the first
 * that matches counts. */
struct module_number { const char *key; double number; };
struct module_numbers { struct module_number *item; int count; };

/* One adapter tensor: A (rank, in) or B (out, rank), of one linear of one block. */
struct lora_tensor {
	const char *name;	/* PEFT's: base_model.model.transformer.h.0.attn.c_attn.lora_A.weight */
	int block;
	enum slot slot;
	bool is_b;
	int rank;
	double alpha;
	float scale;		/* alpha / rank, or alpha / sqrt(rank) with rslora */
	int rows, cols;
	size_t offset;		/* elements, from the start of the whole set */
};
/*
 * All adapters of a model in global order: block by block, in a block in the order of the family's
 * rows, A before B. A stage's adapters are therefore one contiguous range of every family of values
 * (adapters, gradients, moments): checkpoints and messages are plain ranges of floats.
 */
struct lora {
	int rank;			/* of most modules; so is alpha. Every tensor has its own */
	double alpha, dropout;
	bool rslora, fan_in_fan_out;
	/* The modules that have another rank or alpha, shortest names first found; each one's path or, of all blocks alike,
	 * its path inside a block. PEFT's rank_pattern and alpha_pattern, which adapter_write writes. */
	struct module_numbers ranks, alphas;
	const char **module;		/* target_modules, e.g. "c_attn" (last part of the path) */
	int modules;
	struct lora_tensor *tensor;
	int count;
	size_t elements;
	const char *init;
	const char *base;		/* of init, what it calls its model; null or "": nothing */
	struct arena arena;
};
/* Resolves targets against the model (and reads adapter_config.json of init). Null after an error:
 * EXIT_CONFIG for a target that matches nothing, the head or the embedding, a differing key. */
struct lora *lora_resolve(const struct model_config *config, const struct lora_config *want);
/* No adapters at all, for the model as it is: forward alone. */
struct lora *lora_none(void);
/* What single modules have that others have not, "rank attn.c_proj=7 alpha c_fc=3"; "" where all are alike. */
const char *lora_patterns(const struct lora *lora, struct arena *arena);
/* Tensors of blocks [first, first+blocks): indexes [*from, *to) into lora->tensor. */
void lora_range(const struct lora *lora, int first_block, int blocks, int *from, int *to);
/*
 * Initial values of tensors [from, to) into values (their first tensor at values[0]). From init where
 * given (EXIT_DATA for a missing or misshapen tensor), else A uniform in +-1/sqrt(in) (kaiming_uniform
 * with a = sqrt(5), as PEFT) drawn from (seed, the tensor's name) and B zero.
 */
int lora_values(const struct lora *lora, int from, int to, uint64_t seed, float *values);
/* What rank 0 holds besides its stage: values and moments of all adapters, and their file while that is digested. */
double lora_state_bytes(const struct lora *lora);
void lora_free(struct lora *lora);

/* -- adapter.c ----------------------------------------------------------------------------- */

/* What a PEFT adapter_config.json says. Fields that change the meaning and are not built are refused
 * by name. Null after an error. The arena owns it. */
struct adapter_config {
	int rank;			/* of modules that rank_pattern does not name; so is alpha */
	double alpha, dropout;
	bool rslora, fan_in_fan_out;
	struct texts targets;		/* as written; a regular expression is one item */
	bool targets_are_pattern;	/* target_modules was a text: a regular expression */
	const char *base;		/* base_model_name_or_path; "" where it is not said */
	long long *layer;		/* layers_to_transform; layers 0: all blocks */
	int layers;
	struct texts layers_pattern;	/* what stands before the block's number; none: anything */
	struct module_numbers ranks, alphas;	/* rank_pattern, alpha_pattern */
};
struct adapter_config *adapter_config_read(struct arena *arena, const char *folder);
/* What an adapter directory says of itself. base: of what model it is, null: config's folder; readme: its
 * README.md, null: none. */
struct adapter_about { const char *base, *readme; };
/* Writes a PEFT adapter directory atomically: FOLDER.tmp, fsync, rename (an older FOLDER is replaced).
 * values: lora->elements floats in global order; about may be null. */
int adapter_write(const char *folder, const struct lora *lora, const struct model_config *config,
		  const float *values, const struct adapter_about *about);

/* -- merged.c, merged_files.c -------------------------------------------------------------- */

/*
 * Writes a model directory with the adapter in its weights, as FOLDER.tmp which is then moved: W + scale B A, computed
 * in F32 and rounded once to W's own type; tensors without an adapter byte for byte; what else lies in the
 * model's folder, but for other files of weights. Weights above shard_bytes become several files with an index. One
 * piece of a tensor is in memory at a time. progress, where not null, is called with what was written so far and
 * all that will be. -1 after an error: EXIT_CREATE where the disk has no room.
 */
struct merged_model {
	const struct weights *weights;
	const struct lora *lora;
	const float *values;		/* lora->elements */
	double shard_bytes;
	void (*progress)(void *arg, double done_bytes, double all_bytes);
	void *arg;
};
int merged_write(const char *folder, const struct merged_model *merge);

/* -- tokenizer.c --------------------------------------------------------------------------- */

/* Ids that grow; {0} is empty. ids_take: room for count more at the end, counted already. */
struct ids { int32_t *id; size_t count, room; };
int32_t *ids_take(struct ids *ids, size_t count);
void ids_release(struct ids *ids);

/* A text tokenizer, identical to Hugging Face's: byte-level and sentencepiece's BPE, word-level vocabularies. */
struct tokenizer;
/* From FOLDER/tokenizer.json, else tokenizer.model, else vocab.json + merges.txt. Null after an error; what is not built is
 * refused by name with EXIT_CONFIG (docs/tokenizers.md lists what is). */
struct tokenizer *tokenizer_open(const char *folder);
/* How many bytes at the start are whole UTF-8 characters. */
size_t utf8_valid(const char *text, size_t bytes);
/* Appends the ids of a UTF-8 text, without special tokens at the ends; special tokens written in the
 * text become their ids only where special. -1 after an error. */
int tokenizer_encode(struct tokenizer *tokenizer, const char *text, size_t bytes, bool special,
		     struct ids *ids);
/*
 * What the tokenizer puts before and after one text (its post-processor, or add_bos_token and add_eos_token of
 * tokenizer_config.json): how many ids, and the ids, which belong to the tokenizer. LLaMA: <s> before; GPT-2: none. They are
 * what Hugging Face's add_special_tokens=True adds to what tokenizer_encode gives.
 */
size_t tokenizer_before(const struct tokenizer *tokenizer, const int32_t **ids);
size_t tokenizer_after(const struct tokenizer *tokenizer, const int32_t **ids);
/*
 * Appends the bytes of ids; special tokens are written out only where special. For a text that grows id by id, decode all ids
 * so far each time: the bytes are right for every count, but for the last character, whose bytes may come one by one. So hold
 * back an incomplete character at the end; all before it stays as it is when more ids come.
 */
int tokenizer_decode(struct tokenizer *tokenizer, const int32_t *id, size_t count, bool special,
		     struct text *text);
/* The same as Hugging Face decodes a text that is whole: bytes that are no UTF-8 become U+FFFD. */
int tokenizer_decode_text(struct tokenizer *tokenizer, const int32_t *id, size_t count, bool special,
			  struct text *text);
int tokenizer_vocabulary(const struct tokenizer *tokenizer);	/* largest id + 1 */
int tokenizer_find(const struct tokenizer *tokenizer, const char *token);	/* -1: none */
void tokenizer_close(struct tokenizer *tokenizer);

/* -- jsonl.c ------------------------------------------------------------------------------- */

/* A file of one JSON map a line, a line in memory at a time; path "-" is standard input, .gz unpacked. */
struct jsonl;
struct jsonl *jsonl_open(const char *path);
/* The next line: 1 with its map, which lasts until the next call; 0 at the end; -1 after an error, said with
 * its position. Empty lines may stand at the end only. One may go on with the next line
 * unless jsonl_failed. */
int jsonl_next(struct jsonl *lines, const struct json **map);
bool jsonl_failed(const struct jsonl *lines);		/* the last -1 was no line's fault: there are no more */
/* The text at a key of the last line, which may hold NULs; null after an error. */
const char *jsonl_text(const struct jsonl *lines, const char *key, size_t *bytes);
/* Says an error about the value that `where` names in the last line ("messages[2].role", "" for the line), as
 * "file:line:column: error: ..."; always -1. */
int jsonl_error(const struct jsonl *lines, int code, const char *where, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* A value as messages show it: short ones in full. */
#define JSONL_QUOTE 48
void jsonl_quote(const struct json *value, char quote[JSONL_QUOTE]);
void jsonl_close(struct jsonl *lines);

/* -- chat.c, template.c -------------------------------------------------------------------- */

enum chat_role { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT };
/* What was said by whom; texts belong to others and may hold NULs. */
struct chat_turn {
	enum chat_role role;
	const char *text;
	size_t bytes;
	const char *input;		/* Alpaca's, beside the instruction; null: none */
	size_t input_bytes;
	bool untrained;			/* an answer that its own line takes out of the training */
};
struct chat { struct chat_turn *turn; int count, room; };

/* How chats are written for a model. */
struct chat_template;
extern const char *const template_words[];	/* their names, ended by null */
/*
 * The template of a name, or with a null name the one that FOLDER's own chat_template (chat_template.jinja or .json,
 * tokenizer_config.json) is recognised as. end: the end-of-text token as text where the folder names none; may be null.
 * Null after an error that lists the names.
 */
struct chat_template *template_open(const char *folder, const char *name, const struct tokenizer *tokenizer,
				    const char *end);
const char *template_name(const struct chat_template *t);
/* What ends an answer, as text; one token where the vocabulary has it. */
const char *template_stop(const struct chat_template *t);
/* Appends the ids of what a user says (system: or null, what the system says before), up to where the answer begins:
 * transformers' add_generation_prompt. -1 after an error, which begins with `where`. */
int template_ask(const struct chat_template *t, struct tokenizer *tokenizer, const char *where, const char *system,
		 const char *text, size_t bytes, struct ids *ids);
void template_close(struct chat_template *t);

/* -- dataset.c ----------------------------------------------------------------------------- */

/* Auto: what asks for an answer is not trained, where a file tells it from the answer. */
enum data_mask { MASK_AUTO, MASK_NONE, MASK_PROMPT, MASK_ASSISTANT };

/* Keys of .jsonl lines that a file may call otherwise. */
enum data_column {
	COLUMN_TEXT, COLUMN_PROMPT, COLUMN_COMPLETION, COLUMN_QUESTION, COLUMN_ANSWER, COLUMN_MESSAGES, COLUMN_ROLE,
	COLUMN_CONTENT, COLUMN_INSTRUCTION, COLUMN_INPUT, COLUMN_OUTPUT, COLUMN_CONVERSATIONS, COLUMN_FROM,
	COLUMN_VALUE, COLUMN_SYSTEM, COLUMN_HISTORY,
	DATA_COLUMNS
};

/* The `data` section of a job. */
struct data_config {
	const char *train, *valid;	/* a file or a directory; null: none */
	long long sequence;		/* 0: not given (256, or a pre-tokenised file's own) */
	int mask;			/* enum data_mask */
	const char *template;		/* null: the model's own */
	const char *column[DATA_COLUMNS];	/* null: its own name */
	const char *cache;		/* folder for what was tokenised, "none"; null: the user's */
	bool shuffle;
	bool pack, pack_given;		/* several samples in a sequence; see dataset_packs */
};

struct store;
/* Samples of exactly `tokens` ids and labels, in a mapped file. Rank 0 alone opens one. */
struct dataset {
	const char *path;
	size_t samples;
	int tokens;			/* T */
	size_t trained_tokens;		/* labels that count, after the shift inside */
	size_t cut, cut_tokens;		/* samples longer than T, and what they lost */
	size_t skipped;			/* samples of lines without a trained token, left out */
	const char *template;		/* that chats were written with; null: none was needed */
	struct digest digest;		/* of the ids and labels */
	const char *cache;		/* the file that they are kept in; null: they are not */
	bool kept;			/* they were there already */
	struct store *store;
	struct arena arena;
};
/* T of text by the configuration alone, before anything is read. -1 where the model has fewer positions (EXIT_CONFIG). */
int dataset_sequence(const struct data_config *data, const struct model_config *config);
/* Whether a path means plain text, which is one stream that is cut into sequences; and whether sequences of a file hold
 * several samples that do not see each other, as data.pack asks. */
bool dataset_is_text(const char *path);
bool dataset_packs(const struct data_config *data, const char *path);
/*
 * Reads .txt (packed), .jsonl (its forms: samples.c), .safetensors (input_ids and labels), or a directory that holds KIND.jsonl, .txt or .safetensors (kind: "train" or "valid").
 * Text is tokenised with the tokenizer of the model's folder. Ids outside the vocabulary, a broken
 * line (file:line:column), a completion without a token, no sample: errors (EXIT_DATA; EXIT_INPUT where
 * missing). A sequence above config->positions is EXIT_CONFIG. Null after an error.
 */
struct dataset *dataset_open(const char *path, const char *kind, const struct data_config *data,
			     const struct model_config *config);
/* A sample of the file: its T ids and labels, unshifted, -100 = not trained. -1 as dataset_sample. */
int dataset_row_length(const struct dataset *dataset, uint64_t row);	/* its ids without padding */
int dataset_row(const struct dataset *dataset, uint64_t row, int32_t *ids, int32_t *labels);
/*
 * The sample at a place of the endless stream: epoch after epoch, each in an order that is a function
 * of (seed, epoch) alone; file order without shuffle. Copies T ids and T labels *shifted*: label[t]
 * is what position t predicts (labels[t+1] of the file), -1 where untrained and at T-1. Returns how many
 * positions are trained; -1 (EXIT_RETRY) where the file was damaged after it was opened.
 */
int dataset_sample(const struct dataset *dataset, uint64_t seed, bool shuffle, uint64_t place,
		   int32_t *ids, int32_t *labels);
/* How many tokens of that sample matter: up to the last whose label is trained, at least 1. What follows is seen by
 * nothing that is trained. */
int dataset_length(const struct dataset *dataset, uint64_t seed, bool shuffle, uint64_t place);
void dataset_close(struct dataset *dataset);

/* What a look through a data file found. */
struct data_report {
	bool bytes;			/* without a model: lengths are bytes, nothing is known of tokens */
	int sequence;
	size_t samples, errors, duplicates, skipped;
	size_t shortest, median, p95, longest;	/* before samples are cut */
	size_t all_tokens, kept_tokens, trained_tokens, cut, cut_tokens;
	char form[48], template[32];
};
/* Says every error of a file (the first hundred in full) and counts them; config null: without a tokenizer. -1 where the
 * file could not be read to its end. */
int dataset_check(const char *path, const char *kind, const struct data_config *data,
		  const struct model_config *config, struct data_report *report);

/* -- packing.c ----------------------------------------------------------------------------- */

/* Rows of T tokens that hold several samples each, for one seed. The set must live as long. */
struct packing;
struct packing_facts {
	size_t rows;		/* of an epoch */
	int most;		/* samples of a row, at most */
	size_t tokens;		/* of all samples, without their padding */
};
struct packing *packing_open(const struct dataset *set, uint64_t seed, bool shuffle);
struct packing_facts packing_facts(const struct packing *packing);
/* A sample of a row: its number in the endless stream of samples (epoch * samples + its place in the first epoch), and
 * how many tokens of the row are its own. */
struct packed_sample {
	uint64_t number;
	int tokens;
};
/*
 * The row at a place of the endless stream of rows: epoch after epoch, each in an order that is a function of (seed,
 * epoch) alone, or of the file without shuffle. Ids and labels (shifted) as dataset_sample; its samples, at most `most`,
 * one after the other, then padding. Returns how many positions are trained; -1 as dataset_sample.
 */
int packing_row(struct packing *packing, uint64_t place, int32_t *ids, int32_t *labels,
		struct packed_sample *sample, int *samples);
void packing_close(struct packing *packing);

/* -- checkpoint.c -------------------------------------------------------------------------- */

/* Everything that a run needs to go on, on any number of ranks: keyed by global tensor names. */
struct checkpoint {
	long long step;			/* the last one done */
	uint64_t place;			/* next sample of the stream */
	float *value, *m, *v;		/* lora->elements each, global order; belong to the caller */
	/* Pairs (key, value) ended by null that must be equal on resume: seed, batch, sequence, digests
	 * of model, data, adapter shape ... */
	const char **identity;
	/* Pairs that may differ with a warning: learning rate, steps, ISA ... */
	const char **circumstance;
};
/*
 * Writes RUN/ckpt/step-00000050 atomically (reliability.md 1.4): temporary directory, state.safetensors,
 * manifest.json with size and XXH3-128 of each file and its own digest in the last line, fsync of files and
 * directories, rename, fsync of the parent. -1 after an error; older checkpoints are never touched.
 */
int checkpoint_write(const char *run, const struct lora *lora, const struct checkpoint *checkpoint);
/*
 * The value of a key in the "identity" or the "circumstance" of the newest manifest that can be read: for what a resumed run
 * had better keep, and for what an export must be for. False where there is none.
 */
bool checkpoint_said(const char *run, const char *pairs, const char *key, char *value, size_t bytes);
/*
 * Loads the newest checkpoint that verifies into value, m, v (allocated by the caller), step and place;
 * compares identity (EXIT_CONFIG naming what differs) and warns about circumstance. Damaged ones are
 * named (warn) and skipped. Returns 1 when one was loaded, 0 when there is none at all, -1 with EXIT_DATA
 * when none of several verifies. Temporary directories of earlier attempts are removed.
 */
int checkpoint_load(const char *run, const struct lora *lora, struct checkpoint *checkpoint);
/* The values alone of the checkpoint of a step, or (step -1) of the newest one that verifies, from a run that may be going
 * on: nothing in it is touched or compared. Returns the step; -1 after an error. */
long long checkpoint_values(const char *run, long long step, const struct lora *lora, float *value);

/* -- stage.c ------------------------------------------------------------------------------- */

struct micro_batch;
/* What one rank runs: blocks [first_block, first_block + blocks), with or without the ends. */
struct stage_spec {
	int first_block, blocks;
	bool embedding, head;
	int sequences, tokens;	/* of a micro-batch: n = sequences * tokens */
	int slots;		/* room K: micro-batches in flight; m keeps its activations in slot m % slots */
	int edges;		/* buffers of the cuts, at least slots: m has number m % edges */
	enum dtype dtype;	/* of frozen matrices, stored activations and what products read: F32 or BF16 */
	enum recompute recompute;
	bool plain;		/* BF16 weights once, row-major, not packed for each direction: half of their memory */
	bool packed;		/* sequences hold several samples: see struct micro_batch */
	bool dump;		/* keep hidden states, and logits on the head, for --dump */
	/* Cuts inside the stage that what crosses them passes through, as it would through a link's codec:
	 * passes[i]: after the stage's i-th block; null: none. x: host, (n, width). */
	const bool *passes;
	void (*pass)(void *arg, int block, bool backward, const struct micro_batch *micro,
		     float *x);
	void *pass_arg;
};

/* What a stage takes memory for, bytes. Weights are mapped file pages where no conversion is needed. */
struct stage_memory {
	size_t weights, adapters, activations, work, total;
};
/* The allocator's own arithmetic, without allocating anything. */
struct stage_memory stage_memory(const struct model_config *config, const struct weights *weights,
				 const struct lora *lora, const struct stage_spec *spec,
				 int threads);

/* A micro-batch as the stage needs it. ids only with the embedding, labels only with the head. */
struct micro_batch {
	uint64_t seed;			/* of the run, for dropout; so are the next two */
	uint32_t step;			/* from 1 */
	uint32_t first_sample;		/* its place in the step's batch */
	const int32_t *ids, *labels;	/* host, n each; labels already shifted, negative: untrained */
	float loss_scale;		/* 1 / trained tokens of the whole batch */
	bool train;			/* false: forward only, for validation */
	/*
	 * Of a packed stage: which rows are which sample's, host; they cover all n rows one after the other, none
	 * across two sequences. Samples do not see each other, and positions begin anew in each.
	 */
	const struct segment *segment;
	int segments;			/* at least 1 there; 0 else */
};

struct stage;
/* Allocates everything, loads (maps or converts) its own tensors and sets the adapters to values (the
 * floats of its range of lora->tensor). Null after an error. */
struct stage *stage_open(struct device *dev, const struct model_config *config,
			 const struct weights *weights, const struct lora *lora,
			 const struct stage_spec *spec, const float *values);
void stage_close(struct stage *stage);
size_t stage_cut_bytes(const struct stage_spec *spec, const struct model_config *config);

/*
 * Host buffers of the cuts of micro-batch m, stage_cut_bytes each; on devices in host memory the stage's own, no copy.
 * input: where its activations are received (stages without embedding). edge: what its forward produced (stages
 * without head); there the gradient of that is received before backward, which leaves the gradient of the input in it. A
 * stage without blocks has one buffer for both.
 */
float *stage_input(struct stage *stage, int m);
float *stage_edge(struct stage *stage, int m);

/* Micro-batch m forward through the stage. On the head: *loss = the sum of -log p over
 * its trained tokens (double, folded in row order). */
void stage_forward(struct stage *stage, int m, const struct micro_batch *micro, double *loss);
/* Its backward; LoRA gradients += . */
void stage_backward(struct stage *stage, int m, const struct micro_batch *micro);
/* False once a kernel found no product for a shape, which was said then (EXIT_BUG; stage_open tries them all): what forward and
 * backward left is worth nothing. */
bool stage_sound(const struct stage *stage);
void stage_zero_gradients(struct stage *stage);
/* *sum = *sum + |g|² tensor by tensor, from this stage's last tensor to its first (law 9). */
void stage_fold_norm(struct stage *stage, double *sum);
/* AdamW on all adapters. */
void stage_update(struct stage *stage, const struct adamw *settings);

/* -- generator.c ----------------------------------------------------------------------------- */

/* What one rank runs to generate: blocks [first_block, first_block + blocks), with or without the ends. */
struct generator_spec {
	int first_block, blocks;
	bool embedding, head;
	int sequences, room;	/* of which keys and values are kept: so many, of at most so many tokens each */
	int rows;		/* of new tokens at once, at most */
	enum dtype dtype;	/* of frozen matrices, what is kept and what products read: F32 or BF16 */
};
struct generator_memory { size_t weights, adapters, cache, work, total; };
/* The allocator's own arithmetic, without allocating anything. */
struct generator_memory generator_memory(const struct model_config *config, const struct weights *weights,
				     const struct lora *lora, const struct generator_spec *spec);

/* A new token: its id (read with the embedding alone), the number of its sequence and its place in it. */
struct decode_row { int32_t id, sequence, position; };
struct generator;
/* As stage_open. */
struct generator *generator_open(struct device *dev, const struct model_config *config, const struct weights *weights,
			     const struct lora *lora, const struct generator_spec *spec, const float *values);
/* Up to so many rows the bits of each are its own, whatever the others are. */
int generator_few(void);
/* How many rows x must have room for where so many are run. */
int generator_rows(int rows);
/*
 * Rows of new tokens through the blocks; tokens of one sequence stand one behind the other, and what was before them has been
 * run. x: host, (generator_rows(rows), width), what the generator begins with (not read with the embedding), and what it leaves.
 */
void generator_run(struct generator *generator, float *x, const struct decode_row *row, int rows);
/* On the head, the logits (count, vocabulary), host, of count rows of x after generator_run, at most generator_few. They may be
 * changed. */
float *generator_logits(struct generator *generator, const float *x, const int *which, int count);
void generator_close(struct generator *generator);

/* -- sampler.c ----------------------------------------------------------------------------- */

/* How the next token is chosen, as transformers' generate does. */
struct sampling {
	double temperature;		/* 0: the likeliest */
	int top_k;			/* 0: all */
	double top_p;			/* 1: all */
	double repetition_penalty;	/* 1: none */
	long long seed;
};
struct sampler;
struct sampler *sampler_open(const struct sampling *settings, int vocabulary);
/* What it takes. */
size_t sampler_bytes(int vocabulary);
/* The token after the `count` ids of a prompt (by its number) and what followed it. Logits are changed. */
int sampler_next(struct sampler *sampler, float *logits, const int32_t *ids, size_t count, uint32_t prompt);
void sampler_close(struct sampler *sampler);

/* -- transcript.c -------------------------------------------------------------------------- */

struct transcript;
/* A text that goes on behind the id `before` (-1: none). The tokenizer and the stop texts must live as long. */
struct transcript *transcript_open(struct tokenizer *tokenizer, const char *const *stop, int stops, int32_t before);
/* Another text from here on. */
void transcript_begin(struct transcript *transcript, int32_t before);
/* 1 where a stop text has come, from which on there is no text; else 0. -1 after an error. */
int transcript_add(struct transcript *transcript, int32_t id);
/* What can be shown and has not been: whole characters which are no part of a stop text; with `all`, whatever is left.
 * Lasts until the next call. */
const char *transcript_show(struct transcript *transcript, bool all, size_t *bytes);
/* All of it. */
const char *transcript_text(const struct transcript *transcript, size_t *bytes);
/* Lets go of all but what a stop text may begin in: for who asks for nothing else. transcript_bytes: what such a one takes. */
void transcript_forget(struct transcript *transcript);
size_t transcript_bytes(const char *const *stop, int stops);
void transcript_close(struct transcript *transcript);
/* Adds a text, with U+FFFD for every byte that is no part of a character, and for NUL. */
void transcript_clean(struct text *to, const char *data, size_t bytes);

enum stage_family { STAGE_VALUES, STAGE_GRADIENTS, STAGE_M, STAGE_V };
/* The stage's adapters: tensors [from, to) of lora->tensor, elements floats. */
void stage_adapters(const struct stage *stage, int *from, int *to, size_t *elements);
/* Copies a whole family between the stage and host memory. */
void stage_read(struct stage *stage, enum stage_family family, float *to);
void stage_write(struct stage *stage, enum stage_family family, const float *from);
/* With spec.dump: hidden state number i of this stage (i = 0: the input of its first block; i = 1..blocks:
 * the output of its i-th block), n * width floats of the micro-batch that ran last; and its logits. */
void stage_hidden(struct stage *stage, int i, float *to);
void stage_logits(struct stage *stage, float *to);

#endif
