package bench

import (
	"errors"
	"os"
	"runtime"
	"runtime/pprof"
)

// profile writes a CPU profile from now until the returned function is called, and
// then a heap and a goroutine profile, to files that begin with path.
func profile(path string) (stop func() error, err error) {
	cpu, err := os.Create(path + ".cpu")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, errors.Join(err, cpu.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		errs := []error{cpu.Close()}
		runtime.GC()
		for _, name := range []string{"heap", "goroutine"} {
			f, err := os.Create(path + "." + name)
			if err != nil {
				return errors.Join(append(errs, err)...)
			}
			errs = append(errs, pprof.Lookup(name).WriteTo(f, 0), f.Close())
		}
		return errors.Join(errs...)
	}, nil
}
