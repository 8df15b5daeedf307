package document

import "strings"

// nearest returns the known key a mistyped one most likely stands for, or "".
func nearest(key string, known []string) string {
	const longest = 64
	if len(key) > longest {
		return ""
	}
	best, least := "", max(2, len(key)/3)+1
	for _, k := range known {
		d := distance(normal(key), normal(k))
		if len(key) >= 4 && strings.HasPrefix(k, key) {
			d = min(d, 2) // a unit or another ending is missing
		}
		if d < least && d < len(k) {
			best, least = k, d
		}
	}
	return best
}

func normal(key string) string { return strings.ReplaceAll(strings.ToLower(key), "-", "_") }

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that lead from a to b.
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, now := rows[(i-1)%3], rows[i%3], rows[(i+1)%3]
		now[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}
