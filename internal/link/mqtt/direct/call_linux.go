package direct

import (
	"syscall"
	"unsafe"
)

func read(fd int, b []byte, ordinary bool) (int, error) {
	if ordinary || len(b) == 0 {
		return syscall.Read(fd, b)
	}
	return result(syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))) // #nosec G103 -- b[:len(b)] and nothing else
}

func write(fd int, b []byte, ordinary bool) (int, error) {
	if ordinary || len(b) == 0 {
		return syscall.Write(fd, b)
	}
	return result(syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))) // #nosec G103 -- b[:len(b)] and nothing else
}

func result(n, _ uintptr, errno syscall.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
