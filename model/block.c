/*
 * What a block consists of: which of the file's linears make one product, and where a tensor of the file goes.
 */
#include "model/block.h"

struct matrix *block_vector(struct block *block, enum slot slot)
{
	switch (slot) {
	case SLOT_NORM1: return &block->norm1;
	case SLOT_NORM1_BIAS: return &block->norm1_bias;
	case SLOT_NORM2: return &block->norm2;
	case SLOT_NORM2_BIAS: return &block->norm2_bias;
	case SLOT_Q_NORM: return &block->q_norm;
	case SLOT_K_NORM: return &block->k_norm;
	default: return NULL;
	}
}

/* Which of the file's linears make one of a block's, in the order of its columns; a bias follows its linear. */
static const struct recipe {
	enum block_linear linear;
	enum slot part[PARTS];		/* ended by SLOT_EMBED, which is none */
} recipes[] = {
	{LINEAR_QKV, {SLOT_QKV}},
	{LINEAR_QKV, {SLOT_Q, SLOT_K, SLOT_V}},
	{LINEAR_OUT, {SLOT_OUT}},
	{LINEAR_UP, {SLOT_GATE, SLOT_UP}},
	{LINEAR_UP, {SLOT_UP}},
	{LINEAR_DOWN, {SLOT_DOWN}},
};
enum { RECIPES = sizeof(recipes) / sizeof(*recipes) };

/* Whether the model has the linears of a recipe; of two for one linear the first holds. */
static bool recipe_holds(const struct model_config *config, int r)
{
	if (!model_row(config, recipes[r].part[0]))
		return false;
	return r == 0 || recipes[r].linear != recipes[r - 1].linear ||
	       !recipe_holds(config, r - 1);
}

struct linear *block_linear(struct block *block, enum block_linear which)
{
	struct linear *all[BLOCK_LINEARS] = {
		[LINEAR_QKV] = &block->qkv,
		[LINEAR_OUT] = &block->out,
		[LINEAR_UP] = &block->up,
		[LINEAR_DOWN] = &block->down,
	};

	return all[which];
}

struct part *block_part(struct block *block, enum slot slot)
{
	for (int i = 0; i < BLOCK_LINEARS; i++) {
		struct linear *linear = block_linear(block, i);

		for (int p = 0; p < linear->parts; p++)
			if (linear->part[p].slot == slot)
				return &linear->part[p];
	}
	return NULL;
}

void block_shape(const struct model_config *config, struct block *block)
{
	for (int r = 0; r < RECIPES; r++) {
		struct linear *linear = block_linear(block, recipes[r].linear);

		if (!recipe_holds(config, r))
			continue;
		for (int p = 0; p < PARTS && recipes[r].part[p] != SLOT_EMBED; p++) {
			const struct tensor_row *row = model_row(config, recipes[r].part[p]);
			int rows = dim_size(config, row->rows), cols = dim_size(config, row->cols);

			linear->transposed = row->transposed;
			linear->in = row->transposed ? rows : cols;
			linear->part[p] = (struct part){.slot = row->slot,
							.out = row->transposed ? cols : rows,
							.first = linear->out};
			linear->out += linear->part[p].out;
			linear->parts++;
		}
	}
}

/* The rank columns of adapted parts one behind the other; an even number, as BF16 comes in pairs. */
static void shape_tail(struct linear *linear)
{
	for (int p = 0; p < linear->parts; p++) {
		linear->part[p].tail = linear->tail;
		linear->tail += linear->part[p].adapted ? linear->part[p].rank : 0;
	}
	linear->tail += linear->tail % 2;
}

void block_tails(struct block *block)
{
	for (int i = 0; i < BLOCK_LINEARS; i++)
		shape_tail(block_linear(block, i));
}
