/*
 * launch/data.h - the actions of `edgepipe data`, one file each.
 */
#ifndef EDGEPIPE_LAUNCH_DATA_H
#define EDGEPIPE_LAUNCH_DATA_H

#include "launch/launch.h"

/* Each takes what follows `data` (argv[0] is the action) and returns an exit code. */
int data_show(int argc, char **argv);	/* data_show.c */
int data_check(int argc, char **argv);	/* data_check.c */
int data_tokens(int argc, char **argv); /* data_tokens.c: tokenize, detokenize */

/* What to do about a fifth of the samples or more that are skipped, or cut; null: there are fewer. */
const char *data_advice(size_t samples, size_t cut, size_t skipped);

#endif
