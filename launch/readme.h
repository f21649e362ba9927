/* launch/readme.h - the README.md of an adapter directory. */
#ifndef EDGEPIPE_LAUNCH_README_H
#define EDGEPIPE_LAUNCH_README_H

#include "launch/launch.h"

/* What it is made from. step: of which the adapter is, -1: the run's last. */
struct readme {
	const char *run;
	const struct job *job;
	const struct model_config *model;
	const struct lora *lora;
	long long step;
};
/* The text; the caller frees. */
char *readme_make(const struct readme *readme);
/* What RUN/samples.md shall hold: the first samples as text, with the tokenizer in the model's folder. The caller frees. */
char *readme_samples(const struct dataset *data, const char *model);

#endif
