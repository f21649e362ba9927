/*
 * launch/gantt.h - a step as a picture: a row a stage with its forwards and backwards, and between the rows the messages
 * on their links.
 */
#ifndef EDGEPIPE_LAUNCH_GANTT_H
#define EDGEPIPE_LAUNCH_GANTT_H

#include "launch/launch.h"

/* One op of a stage, or one message of the cut behind it. */
struct gantt_bar {
	double start_s, end_s;
	int stage, micro;		/* of a message: the cut between `stage` and the next */
	bool backward, message;
};
struct gantt {
	struct arena arena;		/* of all that follows */
	int stages;
	const char **name;		/* [stages]: nodes; */
	const char **held;		/* and their blocks */
	double step_s;
	double *busy_s;			/* [stages] */
	struct gantt_bar *bar;
	int bars;
};

/* The step of a plan as it is predicted; -1 after an error. */
int gantt_predict(struct gantt *gantt, const struct problem *problem, const struct plan *plan);
/* Names and blocks of a plan's stages, and room for so many bars. */
void gantt_open(struct gantt *gantt, const struct problem *problem, const struct plan *plan, int bars);
void gantt_release(struct gantt *gantt);

/* Several steps of the same stages one below the other on one time axis; with a caption each. */
struct gantt_panel { const struct gantt *gantt; const char *caption; };
void gantt_svg(struct text *text, const char *title, const struct gantt_panel *panel, int panels, bool alone);

#endif
