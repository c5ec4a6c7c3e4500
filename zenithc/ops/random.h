/* The numbers that random operators draw, part of their meaning here (ONNX leaves it open): a counter-based generator, so that
 * results depend neither on threads nor on targets. Draw k of a node is splitmix64's output k (Steele, Lea and Flood, OOPSLA
 * 2014): mix(seed + (k + 1) * GAMMA). Uniform numbers are its upper 53 bits times 2^-53; a normal one is
 * sqrt(-2 log(1 - u)) cos(2 pi v) from two draws (Box and Muller). Element k of RandomUniform, Bernoulli and Dropout takes
 * draw k; of RandomNormal, draws 2k and 2k + 1; sample k of row r of Multinomial, draw r * sample_size + k.
 * Without attribute `seed` the node's name gives the seed: every run draws the same numbers, and so does every iteration of
 * a loop. */
#ifndef ZN_RANDOM_H
#define ZN_RANDOM_H
#include "zenithc/graph/graph.h"

#define ZN_RANDOM_GAMMA UINT64_C(0x9E3779B97F4A7C15)
#define ZN_RANDOM_MIX1 UINT64_C(0xBF58476D1CE4E5B9) /* z = (z ^ z >> 30) * MIX1 */
#define ZN_RANDOM_MIX2 UINT64_C(0x94D049BB133111EB) /* z = (z ^ z >> 27) * MIX2; then z ^ z >> 31 */

uint64_t zn_random_seed(const zn_node *n);
#endif
