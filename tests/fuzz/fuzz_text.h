/*
 * tests/fuzz/fuzz_text.h - a tokenizer of whatever files there are, tried on texts.
 */
#ifndef EDGEPIPE_TESTS_FUZZ_TEXT_H
#define EDGEPIPE_TESTS_FUZZ_TEXT_H

#include "model/model.h"
#include "tests/fuzz/fuzz.h"

/* 0, or -1 where it fails, which is said. Ids are in the vocabulary, and can be read back. */
static inline int fuzz_try_text(struct tokenizer *tokenizer, const char *text)
{
	struct ids ids = {0};
	struct text back = {0};
	int status = tokenizer_encode(tokenizer, text, strlen(text), true, &ids);

	for (size_t i = 0; status == 0 && i < ids.count; i++)
		if (ids.id[i] < 0 || ids.id[i] >= tokenizer_vocabulary(tokenizer))
			abort();
	if (status == 0)
		status = tokenizer_decode(tokenizer, ids.id, ids.count, true, &back);
	ids_release(&ids);
	text_release(&back);
	return status;
}

static inline void fuzz_tokenizer(const char *folder)
{
	static const char *const texts[] = {"", "Hello  world, it's 12345 o'clock\n\n",
					    "\xe2\x96\x81 caf\xc3\xa9 \xf0\x9f\x98\x80<s>"};
	struct tokenizer *tokenizer = tokenizer_open(folder);
	bool failed = !tokenizer;

	for (size_t i = 0; !failed && i < sizeof texts / sizeof *texts; i++)
		failed = fuzz_try_text(tokenizer, texts[i]) < 0;
	fuzz_done(failed);
	tokenizer_close(tokenizer);
}

#endif
