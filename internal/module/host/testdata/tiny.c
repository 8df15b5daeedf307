// The smallest module process: answers Start and Ping, and exits with code 7
// after answering as many frames as its argument says. Module number 66.
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

static int get(unsigned char *to, size_t n)
{
	for (size_t have = 0; have < n;) {
		ssize_t r = read(3, to + have, n - have);
		if (r <= 0)
			return 0;
		have += (size_t)r;
	}
	return 1;
}

int main(int argc, char **argv)
{
	int frames = argc > 1 ? atoi(argv[1]) : 1;
	// ModuleFrame{hello: {protocol: 1}}
	static const unsigned char hello[] = {4, 0, 0, 0, 0x12, 2, 0x08, 1};
	if (write(3, hello, sizeof hello) != sizeof hello)
		return 1;
	while (frames-- > 0) {
		unsigned char head[4], body[65536];
		if (!get(head, 4))
			return 0;
		size_t n = head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16;
		if (n > sizeof body || !get(body, n) || body[0] != 0x08)
			return 1;
		// ModuleFrame{id: the same, result: {module_number: 66}}
		unsigned char answer[32] = {0, 0, 0, 0, 0x08};
		size_t at = 5;
		for (size_t i = 1; i < n; i++) {
			answer[at++] = body[i];
			if (body[i] < 0x80)
				break;
		}
		static const unsigned char result[] = {0x1a, 3, 0x20, 0x84, 0x01};
		for (size_t i = 0; i < sizeof result; i++)
			answer[at++] = result[i];
		answer[0] = (unsigned char)(at - 4);
		if (write(3, answer, at) != (ssize_t)at)
			return 1;
	}
	return 7;
}
