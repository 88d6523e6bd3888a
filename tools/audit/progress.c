// SPDX-License-Identifier: Apache-2.0
// Drawing the progress bar.
#include "progress.h"

#include <stdio.h>
#include <unistd.h>

#define WIDTH 40

void progress_begin(struct progress *progress, uint64_t first, uint64_t total)
{
    progress->shown = isatty(STDERR_FILENO) == 1 && total > first;
    progress->total = total;
    progress->next = progress->shown ? first : UINT64_MAX;
}

void progress_draw(struct progress *progress, uint64_t done)
{
    if (done < progress->next)
        return;
    if (done > progress->total)
        done = progress->total;
    int filled = (int)((double)done / (double)progress->total * WIDTH);
    fprintf(stderr, "\r[%.*s%*s] %3d%%", filled, "########################################",
            WIDTH - filled, "", (int)((double)done / (double)progress->total * 100));
    progress->next = done + progress->total / 200 + 1;
}

void progress_end(struct progress *progress)
{
    if (progress->shown)
        fprintf(stderr, "\r%*s\r", WIDTH + 8, "");
}
