/*
 * job_data.c - what the `data` section of a topology file may name.
 */
#include "launch/launch.h"

#include <string.h>

static void check_template(struct job *job)
{
	const char *name = job->data.template, *near;
	struct text list = {0};
	int count = 0;

	for (; template_words[count]; count++) {
		if (name && strcmp(name, template_words[count]) == 0)
			name = NULL;
		text_add(&list, "%s%s", count ? ", " : "", template_words[count]);
	}
	near = name ? nearest_word(name, template_words, count) : NULL;
	if (name)
		config_error(&job->config, "data.template", "\"%s\" is none of %s%s%s%s", name,
			     list.data, near ? " (did you mean \"" : "", near ? near : "",
			     near ? "\"?)" : "");
	text_release(&list);
}

void job_check_data(struct job *job)
{
	const char *cache = job->data.cache;

	check_template(job);
	if (cache && cache[0] != '/' && strcmp(cache, "none") != 0)
		config_error(&job->config, "data.cache",
			     "\"%s\" is neither none nor a path from the root", cache);
}
