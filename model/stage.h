/*
 * The inside of a stage: shared by layout.c, which carves its memory, frozen.c and rope.c, which fill it, and stage.c,
 * which runs it.
 */
#ifndef EDGEPIPE_MODEL_STAGE_H
#define EDGEPIPE_MODEL_STAGE_H

#include "model/block.h"

struct stage {
	struct device *dev;
	const struct model_config *config;
	const struct lora *lora;
	struct stage_spec spec;
	int n;				/* rows of a micro-batch */

	struct block *block;		/* spec.blocks */
	struct saved *saved;		/* (spec.slots, spec.blocks) */
	/*
	 * Buffers of the cuts, spec.edges each, (n, C). edge: the stage's output after forward (on the head: its
	 * gradient at once), which receives the gradient of the output before backward and holds the gradient of
	 * the input after it. input: of the first block; the edge itself where there is no block.
	 */
	struct matrix *edge, *input;
	struct matrix tokens, positions;	/* embedding */
	int32_t *ids;			/* (n), device */
	/* Of the micro-batch that runs, (n) each, device; null where sequences are not packed. */
	struct spot *spot;
	struct segment *segment;
	struct head head;
	struct work work;
	struct matrix dump_output, dump_logits;
	int last;			/* the micro-batch that ran forward last */

	int from, to;			/* tensors of lora->tensor */
	size_t elements;
	float *values, *gradients, *m, *v;	/* device, elements each */
	double *norm;			/* one number, device */

	void *memory;			/* the slab, device */
	float *host;			/* staging of cuts where the device's memory is its own; null: it is not */
	float *host_cut;		/* of a cut inside the stage */
	struct stage_memory bytes;
};

/* -- layout.c ------------------------------------------------------------------------------ */

/*
 * Carves every buffer of the stage out of the slab; with a null base it counts only, into stage->bytes. Weights
 * that the device can use where they are mapped take no memory of the slab. weights may be null while counting:
 * then all are taken to be mapped.
 */
void stage_layout(struct stage *stage, const struct weights *weights, struct slab *slab,
		  int threads, bool host_memory);
/* The arrays that layout fills; released by stage_release. */
void stage_prepare(struct stage *stage, const struct model_config *config,
		   const struct lora *lora, const struct stage_spec *spec);
void stage_release(struct stage *stage);
/* Memory of the slab for a matrix; take: in F32. */
struct matrix take_of(struct slab *slab, enum dtype dtype, int rows, int cols);
struct matrix take(struct slab *slab, int rows, int cols);

/* -- frozen.c ------------------------------------------------------------------------------ */

/* The part of stage_layout that weights are. */
void frozen_layout(struct stage *stage, const struct weights *weights, struct slab *slab,
		   bool host_memory);
/* Fills what frozen_layout carved from the mapped files: converted, packed or uploaded weights. File pages that were
 * copied are given back. */
void frozen_load(struct stage *stage, const struct weights *weights);

/* -- rope.c -------------------------------------------------------------------------------- */

/* Fills the table of rotary positions, where stage_layout carved one. */
void rope_load(struct stage *stage);

#endif
