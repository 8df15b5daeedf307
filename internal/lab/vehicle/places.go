package vehicle

import "math"

// Places are stops in Brno with their real coordinates.
func Places() []Station {
	return []Station{
		{"Main Station", Position{49.1907, 16.6128, 203}},
		{"Freedom Square", Position{49.1951, 16.6068, 220}},
		{"Moravian Square", Position{49.1985, 16.6079, 226}},
		{"Spilberk Castle", Position{49.1945, 16.5997, 285}},
		{"Mendel Square", Position{49.1903, 16.5936, 201}},
		{"Luzanky Park", Position{49.2063, 16.6085, 224}},
		{"Janacek Theatre", Position{49.1982, 16.6116, 218}},
		{"Konecny Square", Position{49.2051, 16.5965, 240}},
		{"Black Fields", Position{49.2060, 16.6190, 240}},
		{"Exhibition Centre", Position{49.1885, 16.5803, 199}},
		{"Bus Station", Position{49.1853, 16.6161, 200}},
		{"Cejl", Position{49.1962, 16.6205, 206}},
		{"Husovice", Position{49.2083, 16.6330, 216}},
		{"Uvoz", Position{49.1972, 16.5935, 238}},
		{"Komensky Square", Position{49.1968, 16.6040, 226}},
		{"New Orchards", Position{49.1898, 16.6062, 200}},
		{"Vienna Street", Position{49.1838, 16.6025, 202}},
		{"Zidenice", Position{49.1993, 16.6405, 212}},
	}
}

// streets connect two places each, by index; every place can be reached.
func streets() [][2]int {
	return [][2]int{
		{0, 1}, {0, 6}, {0, 10}, {0, 11}, {0, 15}, {1, 2}, {1, 14}, {1, 15}, {2, 5}, {2, 6}, {2, 14}, {3, 14}, {3, 13},
		{4, 13}, {4, 15}, {4, 9}, {5, 7}, {5, 8}, {6, 11}, {6, 8}, {7, 13}, {7, 14}, {8, 12}, {9, 13}, {10, 16}, {10, 17},
		{11, 12}, {11, 17}, {12, 17}, {15, 16}, {4, 16},
	}
}

// inTown is how far from a place, in metres, a car still takes the streets.
const inTown = 2000

// route returns the corners on the way from one position to another, without the
// two. A way that does not begin and end in the town has none: it is straight.
func route(from, to Position) []Position {
	all := Places()
	end := nearest(all, to)
	if distance(to, all[end].Position) > inTown || distance(from, all[nearest(all, from)].Position) > inTown {
		return []Position{}
	}
	lengths, next := toEverywhere(all, end)
	start := nearest(all, from)
	if street, ok := streetAt(all, from); ok { // the end from which the way is shorter
		start = street[0]
		if distance(from, all[street[1]].Position)+lengths[street[1]] < distance(from, all[street[0]].Position)+lengths[street[0]] {
			start = street[1]
		}
	}
	corners := []Position{}
	if distance(from, all[start].Position) > arrived {
		corners = append(corners, all[start].Position)
	}
	for at := start; at != end; {
		at = next[at]
		corners = append(corners, all[at].Position)
	}
	if len(corners) > 0 && distance(corners[len(corners)-1], to) <= arrived {
		corners = corners[:len(corners)-1]
	}
	return corners
}

// streetAt returns the street in which the position is.
func streetAt(all []Station, at Position) (street [2]int, ok bool) {
	for _, s := range streets() {
		a, b := all[s[0]].Position, all[s[1]].Position
		if around := distance(a, at) + distance(at, b) - distance(a, b); around < 1 {
			return s, true
		}
	}
	return street, false
}

// toEverywhere returns for each place how far the end is along the streets, and the
// place that comes next on the way to it.
func toEverywhere(all []Station, end int) (lengths []float64, next []int) {
	lengths, next = make([]float64, len(all)), make([]int, len(all))
	for i := range lengths {
		lengths[i] = math.Inf(1)
	}
	lengths[end], next[end] = 0, end
	for changed := true; changed; { // a few rounds in a town of this size
		changed = false
		for _, s := range streets() {
			length := distance(all[s[0]].Position, all[s[1]].Position)
			for _, way := range [][2]int{{s[0], s[1]}, {s[1], s[0]}} {
				if l := lengths[way[1]] + length; l < lengths[way[0]] {
					lengths[way[0]], next[way[0]], changed = l, way[1], true
				}
			}
		}
	}
	return lengths, next
}

// nearest returns the index of the place closest to the position.
func nearest(all []Station, at Position) int {
	best := 0
	for i := range all {
		if distance(at, all[i].Position) < distance(at, all[best].Position) {
			best = i
		}
	}
	return best
}
