package bench

import (
	"fmt"
	"math"
	"strings"
)

// series is one line of a chart.
type series struct {
	name, colour string
	x, y         []float64
}

// chart is one panel, with logarithmic x.
type chart struct {
	title, unit string
	logY        bool
	series      []series
}

// Plot draws a report of Growth as an SVG document: throughput, p99, memory and CPU
// over the number of cars.
func Plot(r Report) (string, error) {
	if len(r.Growth) == 0 {
		return "", fmt.Errorf("the report has no growth in it: make one with `bench growth`")
	}
	line := func(role, name, colour string, value func(Point) float64) series {
		s := series{name: name, colour: colour}
		for _, p := range r.Growth {
			if y := value(p); p.Role == role && y > 0 {
				s.x, s.y = append(s.x, float64(p.Cars)), append(s.y, y)
			}
		}
		return s
	}
	const blue, grey = "#1f6fb4", "#8a8a8a"
	charts := []chart{
		{"Status round trips, closed loop", "1/s", false, []series{
			line(RoleServer, "server", blue, func(p Point) float64 { return p.PerSecond }),
			line(RoleEcho, "echo", grey, func(p Point) float64 { return p.PerSecond })}},
		{"Latency p99, closed loop", "ms", true, []series{
			line(RoleServer, "server", blue, func(p Point) float64 { return p.P99 }),
			line(RoleEcho, "echo", grey, func(p Point) float64 { return p.P99 })}},
		{"Memory with built-in module", "MB", true, []series{
			line(RoleBuiltin, "server, resident", blue, func(p Point) float64 { return p.RSS })}},
		{"CPU with built-in module", "ms per 1000 statuses", false, []series{
			line(RoleBuiltin, "server and HTTP API inside", blue, func(p Point) float64 { return p.CPU })}},
	}
	const width, height = 430, 270
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", 2*width, 2*height+40)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	for i, c := range charts {
		fmt.Fprintf(&b, `<g transform="translate(%d,%d)">`+"\n", i%2*width, i/2*height)
		c.draw(&b, width, height)
		b.WriteString("</g>\n")
	}
	fmt.Fprintf(&b, `<text x="20" y="%d" fill="#555">%s</text>`+"\n", 2*height+16, escape(r.Machine))
	fmt.Fprintf(&b, `<text x="20" y="%d" fill="#555">%s, %s</text>`+"\n", 2*height+32, escape(r.Broker), escape(r.Date))
	b.WriteString("</svg>\n")
	return b.String(), nil
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// draw writes the panel.
func (c *chart) draw(b *strings.Builder, width, height float64) {
	const left, right, top, bottom = 62.0, 18.0, 34.0, 40.0
	minX, maxX, minY, maxY := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, s := range c.series {
		for i := range s.x {
			minX, maxX = min(minX, s.x[i]), max(maxX, s.x[i])
			minY, maxY = min(minY, s.y[i]), max(maxY, s.y[i])
		}
	}
	fmt.Fprintf(b, `<text x="%g" y="20" font-weight="bold">%s, %s</text>`+"\n", left, escape(c.title), escape(c.unit))
	if minX > maxX {
		return
	}
	x := func(v float64) float64 {
		if maxX == minX {
			return left
		}
		return left + (width-left-right)*(math.Log(v)-math.Log(minX))/(math.Log(maxX)-math.Log(minX))
	}
	var ticks []float64
	lowest, highest := 0.0, maxY
	if c.logY {
		lowest, highest = math.Pow(10, math.Floor(math.Log10(minY))), math.Pow(10, math.Ceil(math.Log10(maxY)))
		highest = max(highest, lowest*10)
		for t := lowest; t <= highest*1.001; t *= 10 {
			ticks = append(ticks, t)
		}
	} else {
		step := niceStep(maxY / 4)
		highest = math.Ceil(maxY/step) * step
		for t := 0.0; t <= highest*1.001; t += step {
			ticks = append(ticks, t)
		}
	}
	y := func(v float64) float64 {
		share := (v - lowest) / (highest - lowest)
		if c.logY {
			share = (math.Log(v) - math.Log(lowest)) / (math.Log(highest) - math.Log(lowest))
		}
		return height - bottom - (height-top-bottom)*share
	}
	for _, t := range ticks {
		fmt.Fprintf(b, `<path d="M%.1f %.1fH%.1f" stroke="#ddd"/><text x="%.1f" y="%.1f" text-anchor="end">%g</text>`+"\n", left, y(t), width-right, left-6, y(t)+4, t)
	}
	for t := math.Pow(10, math.Ceil(math.Log10(minX)-1e-9)); t <= maxX*1.001; t *= 10 {
		fmt.Fprintf(b, `<path d="M%.1f %.1fV%.1f" stroke="#eee"/><text x="%.1f" y="%.1f" text-anchor="middle">%g</text>`+"\n", x(t), top, height-bottom, x(t), height-bottom+16, t)
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">cars</text>`+"\n", (left+width-right)/2, height-8)
	for n, s := range c.series {
		var points []string
		for i := range s.x {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(s.x[i]), y(s.y[i])))
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s"/>`+"\n", x(s.x[i]), y(s.y[i]), s.colour)
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", strings.Join(points, " "), s.colour)
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" fill="%s">%s</text>`+"\n", left+8, top+14+14*float64(n), s.colour, escape(s.name))
	}
}

// niceStep returns the next of 1, 2, 5, 10, … that is not smaller.
func niceStep(v float64) float64 {
	if v <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 5} {
		if f*unit >= v {
			return f * unit
		}
	}
	return 10 * unit
}
