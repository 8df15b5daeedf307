package config

import (
	"strconv"
	"strings"

	"external-server/internal/config/document"
)

// nameTooLong is the fault of a name that a topic has no room for.
const nameTooLong = "the name is too long: the topics of a car hold the names of company and car and have at most 65535 bytes"

// cars reads the cars and their modules, in the notation of format A or that of
// the others.
func (l *loader) cars(top *document.Object, cfg *Config) {
	if cfg.Format == FormatA {
		l.singleCar(top, cfg)
		return
	}
	for _, key := range []string{"car_name", "modules"} {
		if top.Get(key) != nil {
			l.Warnf(top.KeyAt(key), key, "ignored, because cars is present; it belongs to the format with a single car")
		}
	}
	common := modules{}
	if n := top.Get("common_modules"); n != nil {
		common = l.modules(n, "common_modules", cfg.Format)
	}
	n := top.Get("cars")
	const needed = `at least one car is needed (CFG-9); expected an object with the names of the cars as keys, such as {"cars": {"car1": {}}}`
	switch {
	case n == nil:
		l.Errorf(top.Value.Off, "cars", "required, but missing; %s", needed)
		return
	case n.Kind == document.KindNull, n.Kind == document.KindObject && len(n.Members) == 0:
		l.Errorf(n.Off, "cars", needed)
		return
	case n.Kind != document.KindObject:
		l.Wrong(n, "cars", "an object with the names of the cars as keys")
		return
	}
	o := l.Object(n, "cars")
	l.labelNames = make(map[string]struct{})
	cfg.Cars = make([]Car, 0, len(n.Members))
	for i := range n.Members {
		m := &n.Members[i]
		car := l.car(m, o.Key(m.Key), common, cfg.Format)
		if m.Key == AnyCarName {
			cfg.AnyCar = &car
			continue
		}
		if fault := nameFault(m.Key); fault != "" {
			l.Errorf(m.Off, o.Key(m.Key), `%s, or "*" for every car of the company`, fault)
		}
		if !tooLong(cfg.Company, "") && tooLong(cfg.Company, m.Key) {
			l.Errorf(m.Off, o.Key(m.Key), nameTooLong)
		}
		cfg.Cars = append(cfg.Cars, car)
	}
}

// car reads one car of "cars". Its specific modules come first (CFG-13).
func (l *loader) car(m *document.Member, path string, common modules, format Format) Car {
	car := Car{Name: m.Key, Modules: common.list}
	o := l.Object(&m.Value, path)
	if o == nil {
		return car
	}
	specific := modules{}
	if n := o.Get("specific_modules"); n != nil {
		specific = l.modules(n, o.Key("specific_modules"), format)
	}
	car.Labels = l.labels(o)
	o.Finish()
	if len(specific.list) == 0 && len(common.list) == 0 {
		l.Errorf(m.Off, path, "every car needs at least one module, here in specific_modules or for all cars in common_modules (CFG-10)")
	}
	if len(specific.list) == 0 {
		return car
	}
	for i := range specific.list {
		if at := common.find(specific.list[i].Number); at >= 0 {
			l.Errorf(specific.offs[i], specific.list[i].KeyPath, "the same module number as %s, which every car gets; remove one (CFG-11)", common.list[at].KeyPath)
		}
	}
	car.Modules = make([]Module, 0, len(specific.list)+len(common.list))
	car.Modules = append(append(car.Modules, specific.list...), common.list...)
	return car
}

func (l *loader) singleCar(top *document.Object, cfg *Config) {
	if top.Get("common_modules") != nil {
		l.Warnf(top.KeyAt("common_modules"), "common_modules", "ignored, it belongs to the formats with several cars; here all modules are in modules")
	}
	car := Car{Name: l.name(top, "car_name", "the name of the car, or cars for several")}
	if !tooLong(cfg.Company, "") && tooLong(cfg.Company, car.Name) {
		l.Errorf(top.At("car_name"), "car_name", nameTooLong)
	}
	if n := top.Required("modules", "an object with module numbers as keys"); n != nil {
		car.Modules = l.modules(n, "modules", FormatA).list
		if n.Kind == document.KindObject && len(n.Members) == 0 {
			l.Errorf(n.Off, "modules", `at least one module is needed (CFG-5); expected such as {"1000": {"lib_path": "…"}}`)
		}
	}
	cfg.Cars = []Car{car}
}

// common tells whether the module stands where all cars get it from.
func (m Module) common() bool {
	return strings.HasPrefix(m.KeyPath, "common_modules.") || strings.HasPrefix(m.KeyPath, "modules.")
}

func (m Module) id() string { return strconv.Itoa(int(m.Number)) }
