/*
 * model/pattern.h - what the two files of regular expressions share.
 */
#ifndef EDGEPIPE_MODEL_PATTERN_H
#define EDGEPIPE_MODEL_PATTERN_H

#include "model/tokenizer.h"

/*
 * Writes an expression of Oniguruma in PCRE2's syntax; the text is the caller's in any case.
 * *least: the largest number of times that something is asked for. Returns null, or what is not
 * built.
 */
const char *pattern_rewrite(const char *source, struct text *rewritten, size_t *least);

#endif
