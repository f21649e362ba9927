/*
 * bench/tokenizer.c - seconds to encode a text, and to open a tokenizer.
 *
 *     tokenizer DIR FILE [IDS]
 *
 * Prints "open S" once; then for every line on standard input encodes FILE whole and prints
 * "encode S COUNT", so that a script can take turns with another program. The ids go to the file
 * IDS, as int32.
 *
 * links: model
 */
#include "model/model.h"

#include <stdlib.h>

int main(int argc, char **argv)
{
	size_t bytes;
	char line[64];

	if (argc < 3) {
		fputs("usage: tokenizer DIR FILE [IDS]\n", stderr);
		return EXIT_USAGE;
	}
	double start = clock_s();
	struct tokenizer *tokenizer = tokenizer_open(argv[1]);
	char *text = tokenizer ? file_read(argv[2], &bytes) : NULL;
	if (!text)
		return error_code();
	printf("open %.6f\n", clock_s() - start);
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		struct ids ids = {0};

		start = clock_s();
		if (tokenizer_encode(tokenizer, text, bytes, false, &ids) < 0)
			return error_code();
		printf("encode %.6f %zu\n", clock_s() - start, ids.count);
		fflush(stdout);
		if (argc > 3 && file_replace(argv[3], ids.id, ids.count * sizeof *ids.id) < 0)
			return error_code();
		ids_release(&ids);
	}
	free(text);
	tokenizer_close(tokenizer);
	return 0;
}
