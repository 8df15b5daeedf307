package demo

// places are stops in the centre of Brno with their real coordinates; the cars
// of the demo start at the first one.
func places() []Station {
	return []Station{
		{"Main Station", Position{49.1907, 16.6128, 203}},
		{"Freedom Square", Position{49.1951, 16.6068, 220}},
		{"Moravian Square", Position{49.1985, 16.6079, 226}},
		{"Spilberk Castle", Position{49.1945, 16.5997, 285}},
		{"Mendel Square", Position{49.1903, 16.5936, 201}},
		{"Luzanky Park", Position{49.2063, 16.6085, 224}},
	}
}
