// Command payload is what e2e/cluster/check runs in pods. Its first argument says what it does:
//
//	serve ADDRESS     answer every HTTP request with the pod's name, until told to stop
//	get URL COUNT     get the URL COUNT times; every answer must be 200
//	resolve NAME IP   the name must have this address
//	absent NAME       the name must not exist
//	flags             change a flag of eth0, which needs NET_ADMIN
//	wait FILE         wait until the file exists
//	touch FILE        make the file
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const patience = 30 * time.Second

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "payload:", err)
		os.Exit(1)
	}
	fmt.Println("done:", os.Args[1:])
}

func run(what string, arguments []string) error {
	switch what {
	case "serve":
		return serve(arguments[0])
	case "get":
		count, err := strconv.Atoi(arguments[1])
		if err != nil {
			return err
		}
		return get(arguments[0], count)
	case "resolve":
		return resolve(arguments[0], arguments[1])
	case "absent":
		return absent(arguments[0])
	case "flags":
		return changeFlags("eth0")
	case "wait":
		return wait(arguments[0])
	case "touch":
		return os.WriteFile(arguments[0], nil, 0o644)
	}
	return fmt.Errorf("%q is not a thing to do", what)
}

func serve(address string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	hostname, _ := os.Hostname()
	failed := make(chan error, 1)
	go func() {
		failed <- http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, hostname)
		}))
	}()
	select {
	case err := <-failed:
		return err
	case <-stop:
		return nil
	}
}

func get(url string, count int) error {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	servers := map[string]int{}
	for range count {
		response, err := client.Get(url)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, response.Status)
		}
		servers[string(body)]++
	}
	fmt.Printf("%d answers from %d servers\n", count, len(servers))
	return nil
}

func resolve(name, address string) error {
	addresses, err := net.LookupHost(name)
	if err == nil && !slices.Contains(addresses, address) {
		err = fmt.Errorf("%s has the addresses %v, not %s", name, addresses, address)
	}
	return err
}

func absent(name string) error {
	addresses, err := net.LookupHost(name)
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return nil
	}
	return fmt.Errorf("%s: %v, %v instead of not found", name, addresses, err)
}

// changeFlags turns IFF_DEBUG of an interface on: harmless, but privileged.
func changeFlags(device string) error {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	var request struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], device)
	request.flags = syscall.IFF_UP | syscall.IFF_DEBUG
	_, _, number := syscall.Syscall(syscall.SYS_IOCTL, uintptr(socket), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request)))
	if number != 0 {
		return number
	}
	return nil
}

func wait(file string) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s did not appear within %s", file, patience)
}
