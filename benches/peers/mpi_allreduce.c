/* MPI_Allreduce of float32 sums, in place, by size: the MPI library itself as a peer.
 *
 *   mpicc -O3 mpi_allreduce.c -o mpi_allreduce
 *   mpirun -n 2 ./mpi_allreduce MILLISECONDS BYTES...
 *
 * Rank 0 prints RESULT {"rows": [[bytes, median microseconds], ...]}. A sample is a batch of calls that
 * takes about a millisecond, its time that of the slowest rank; the median is over the batches. */
#include <mpi.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void sum(float *data, int count) {
  MPI_Allreduce(MPI_IN_PLACE, data, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

/* Seconds of one call, the mean over `calls`, on the slowest rank. */
static double timed(float *data, int count, int calls) {
  MPI_Barrier(MPI_COMM_WORLD);
  double start = MPI_Wtime();
  for (int i = 0; i < calls; i++) sum(data, count);
  double taken = (MPI_Wtime() - start) / calls;
  MPI_Allreduce(MPI_IN_PLACE, &taken, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return taken;
}

/* Stops the job if a sum is wrong; leaves zeros, whose sums never overflow. */
static void check(float *data, int count, int rank, int ranks) {
  for (int i = 0; i < count; i++) data[i] = (float)(i % 97 + rank);
  sum(data, count);
  for (int i = 0; i < count; i++) {
    float wanted = (float)(ranks * (i % 97)) + (float)(ranks * (ranks - 1)) / 2;
    if (fabsf(data[i] - wanted) > 1e-3f) {
      fprintf(stderr, "wrong sum at %d: %f, not %f\n", i, data[i], wanted);
      MPI_Abort(MPI_COMM_WORLD, 2);
    }
    data[i] = 0;
  }
}

/* Median seconds of one call, from about `budget` seconds of batches. */
static double median_of(float *data, int count, double budget) {
  sum(data, count);
  double once = timed(data, count, 3);
  int calls = once < 1e-3 ? (int)(1e-3 / once) + 1 : 1;
  int batches = (int)(budget / (once * calls));
  batches = batches < 5 ? 5 : batches > 2000 ? 2000 : batches;
  double *taken = malloc(sizeof *taken * (size_t)batches);
  if (!taken) MPI_Abort(MPI_COMM_WORLD, 3);
  for (int i = 0; i < batches; i++) taken[i] = timed(data, count, calls);
  qsort(taken, (size_t)batches, sizeof *taken, by_size);
  double median = taken[batches / 2];
  free(taken);
  return median;
}

int main(int argc, char **argv) {
  int rank, ranks;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  double budget = argc > 1 ? atof(argv[1]) / 1e3 : 0.3;
  for (int i = 2; i < argc; i++) {
    int count = (int)(strtoull(argv[i], NULL, 10) / sizeof(float));
    float *data = NULL;
    if (posix_memalign((void **)&data, 64, (size_t)count * sizeof(float))) MPI_Abort(MPI_COMM_WORLD, 3);
    check(data, count, rank, ranks);
    double median = median_of(data, count, budget);
    if (rank == 0) {
      printf("%s[%s, %.3f]", i == 2 ? "RESULT {\"rows\": [" : ", ", argv[i], median * 1e6);
    }
    free(data);
  }
  if (rank == 0 && argc > 2) printf("]}\n");
  MPI_Finalize();
  return 0;
}
