// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loaded before the C library into bcc's process outside the guest, see carried_bcc.py: what a
 * process asks of its kernel about BPF goes to a handler instead, once there is one. What it asks
 * the kernel by a file is found in the tree, or the handler is told that it was looked for.
 *
 * x86-64 only. Whatever slips through is stopped by seccomp, not here.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Other questions than commands of bpf(), which are not negative. */
#define QUESTION_CLOSE -1
#define QUESTION_LOOK -2
#define QUESTION_MEMLOCK -3
#define QUESTION_PERF_EVENT -4

#define FIRST_FD (1 << 20) /* from here on an fd is the handler's */
#define MOST_ERRNO 4095

typedef long handler_function(long question, void *argument, long size);

static handler_function *handler;
static struct utsname guest;

void shim_begin(handler_function *function, const struct utsname *names)
{
	guest = *names;
	handler = function;
}

static long kernel(long number, long a, long b, long c, long d, long e, long f)
{
	register long fourth __asm__("r10") = d;
	register long fifth __asm__("r8") = e;
	register long sixth __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth), "r"(sixth)
			 : "rcx", "r11", "memory");
	return result;
}

static long answer(long result)
{
	if (result >= 0 || result < -MOST_ERRNO)
		return result;
	errno = -result;
	return -1;
}

/* libbpf has no other way to bpf(). */
long syscall(long number, ...)
{
	long a, b, c, d, e, f;
	va_list list;

	va_start(list, number);
	a = va_arg(list, long);
	b = va_arg(list, long);
	c = va_arg(list, long);
	d = va_arg(list, long);
	e = va_arg(list, long);
	f = va_arg(list, long);
	va_end(list);
	if (number == SYS_bpf && handler)
		return answer(handler((int)a, (void *)b, (unsigned int)c));
	if (number == SYS_perf_event_open && handler)
		return answer(handler(QUESTION_PERF_EVENT, NULL, 0));
	return answer(kernel(number, a, b, c, d, e, f));
}

int close(int fd)
{
	if (handler && fd >= FIRST_FD)
		return answer(handler(QUESTION_CLOSE, NULL, fd));
	return answer(kernel(SYS_close, fd, 0, 0, 0, 0, 0));
}

int uname(struct utsname *names)
{
	if (!handler)
		return answer(kernel(SYS_uname, (long)names, 0, 0, 0, 0, 0));
	*names = guest;
	return 0;
}

int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
	if (resource == RLIMIT_MEMLOCK && handler)
		return answer(handler(QUESTION_MEMLOCK, (void *)limit, sizeof(*limit)));
	return answer(kernel(SYS_setrlimit, resource, (long)limit, 0, 0, 0, 0));
}

/* The same structure where a long has 64 bits. */
int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit)
{
	return setrlimit(resource, (const struct rlimit *)limit);
}

/* Tell the handler, and refuse, when a path leads to a kernel's file that the tree lacks. */
static int lacks(const char *path)
{
	if (!handler || (strncmp(path, "/proc/", 6) && strncmp(path, "/sys/", 5)) ||
	    !strncmp(path, "/proc/self/", 11) || !kernel(SYS_access, (long)path, F_OK, 0, 0, 0, 0))
		return 0;
	handler(QUESTION_LOOK, (void *)path, 0);
	errno = ENOENT;
	return 1;
}

int openat(int directory, const char *path, int flags, ...)
{
	va_list list;
	int mode;

	va_start(list, flags);
	mode = va_arg(list, int);
	va_end(list);
	if (lacks(path))
		return -1;
	return answer(kernel(SYS_openat, directory, (long)path, flags, mode, 0, 0));
}

int openat64(int directory, const char *path, int flags, ...) __attribute__((alias("openat")));

int open(const char *path, int flags, ...)
{
	va_list list;
	int mode;

	va_start(list, flags);
	mode = va_arg(list, int);
	va_end(list);
	return openat(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));

int access(const char *path, int mode)
{
	return lacks(path) ? -1 : answer(kernel(SYS_access, (long)path, mode, 0, 0, 0, 0));
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

FILE *fopen(const char *path, const char *mode)
{
	return lacks(path) ? NULL : NEXT(fopen)(path, mode);
}

FILE *fopen64(const char *path, const char *mode) __attribute__((alias("fopen")));

/* How many CPUs there are is the guest's to say. */
long sysconf(int name)
{
	if (handler && (name == _SC_NPROCESSORS_CONF || name == _SC_NPROCESSORS_ONLN))
		handler(QUESTION_LOOK, "the number of CPUs", 0);
	return NEXT(sysconf)(name);
}
