/* How far two cores are apart: two pinned threads bounce one cache line; prints nanoseconds one way.
 *
 *   cc -O3 -pthread c2c.c -o c2c && ./c2c 0 1
 *
 * The host of a virtual machine may place its cores on one L3 (about 30 ns) or on two (about 165 ns),
 * and move them while a program runs. Small and middle all-reduces then take 2 to 5 times as long, so
 * two measurements compare only if this number is the same before and after both. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TRIPS = 20000, REPEATS = 21 };

static _Alignas(128) atomic_int turn;

static void pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  if (pthread_setaffinity_np(pthread_self(), sizeof set, &set) != 0) {
    fprintf(stderr, "c2c: this process may not run on core %d\n", core);
    exit(1);
  }
}

static void wait_for(int value) {
  while (atomic_load_explicit(&turn, memory_order_acquire) != value) {
  }
}

static void set_to(int value) { atomic_store_explicit(&turn, value, memory_order_release); }

static void *answer(void *core) {
  pin(*(int *)core);
  for (int i = 0; i < TRIPS * REPEATS; i++) {
    wait_for(2 * i + 1);
    set_to(2 * i + 2);
  }
  return NULL;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  int first = argc > 1 ? atoi(argv[1]) : 0, second = argc > 2 ? atoi(argv[2]) : 1;
  double ns[REPEATS];
  pthread_t other;
  pin(first);
  if (pthread_create(&other, NULL, answer, &second) != 0) return 1;
  for (int k = 0, i = 0; k < REPEATS; k++) {
    double start = now();
    for (int j = 0; j < TRIPS; j++, i++) {
      set_to(2 * i + 1);
      wait_for(2 * i + 2);
    }
    ns[k] = (now() - start) / TRIPS / 2 * 1e9;
  }
  pthread_join(other, NULL);
  qsort(ns, REPEATS, sizeof *ns, by_size);
  printf("%.1f\n", ns[REPEATS / 2]);
}
