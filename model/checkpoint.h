/*
 * The form of a checkpoint on disk: shared by checkpoint_write.c and checkpoint.c, which reads.
 *
 *     RUN/ckpt/step-00000050/
 *         state.safetensors   per adapter tensor NAME (as PEFT calls it): the value under NAME,
 *                             AdamW's moments under NAME.exp_avg and NAME.exp_avg_sq (torch's
 *                             words), all F32, values first, then all m, then all v
 *         manifest.json       step, place in the data, identity, circumstance, size and XXH3-128
 *                             of the file above; its last line holds the XXH3-128 of all lines
 *                             before it
 */
#ifndef EDGEPIPE_MODEL_CHECKPOINT_H
#define EDGEPIPE_MODEL_CHECKPOINT_H

#define CHECKPOINT_VERSION 1
#define CHECKPOINT_STATE "state.safetensors"
#define CHECKPOINT_MANIFEST "manifest.json"
#define CHECKPOINT_STEP_MOST 99999999 /* eight digits */
#define DIGEST_LINE "\"digest\":\"" /* how the manifest's last line starts */

enum { VALUE, M, V, FAMILIES };
/* Behind a tensor's name, by family. */
#define FAMILY_SUFFIXES {"", ".exp_avg", ".exp_avg_sq"}

#endif
