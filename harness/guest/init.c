// SPDX-License-Identifier: GPL-2.0-only
/*
 * PID 1 of every guest, in the initramfs.
 *
 * spinlock.init=agent (default)  base image as read-only overlay under a tmpfs, agent on virtio-serial
 * spinlock.init=/sbin/init       base image as read-write root, then that program (the Vagrant VM)
 * spinlock.init=probe            print a line on the console and stop, to test the accelerator
 *
 * Block devices are identified by their content, because names and buses differ between plain QEMU
 * and libvirt. Every failure is fatal and prints one line on the console: results of a guest that
 * is only half set up would be wrong.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROOT "/root"
#define KERNEL ROOT "/usr/share/spinlock/kernel"
#define AGENT "/run/spinlock/agent.pyz"
#define NO_MODULES "/modules/none" /* exists in the initramfs of a kernel without modules */
#define DEVICE_WAIT_MS 60000	/* a loaded host without KVM scans a SATA bus slowly */
#define BUILT_IN_WAIT_MS 10000	/* built-in drivers have found their devices when init starts */
#define QUICK_DEATH_S 2
#define QUICK_DEATHS 3

static void stop(void)
{
	sync();
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

static void die(const char *format, ...)
{
	int error = errno;
	va_list arguments;

	printf("spinlock-init: ");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf(error ? ": %s\n" : "\n", strerror(error));
	fflush(stdout);
	stop();
}

static void make_directory(const char *path)
{
	char part[256];

	snprintf(part, sizeof(part), "%s", path);
	for (char *slash = part + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		mkdir(part, 0755);
		*slash = '/';
	}
	if (mkdir(part, 0755) && errno != EEXIST)
		die("mkdir %s", path);
}

/* The kernel option that a file system needs, for the error message. */
static const char *option_of(const char *type)
{
	static const char *const options[][2] = {
		{ "ext4", "CONFIG_EXT4_FS" },	  { "squashfs", "CONFIG_SQUASHFS" },
		{ "tmpfs", "CONFIG_TMPFS" },	  { "devtmpfs", "CONFIG_DEVTMPFS" },
		{ "proc", "CONFIG_PROC_FS" },	  { "sysfs", "CONFIG_SYSFS" },
		{ "cgroup2", "CONFIG_CGROUPS" },  { "devpts", "CONFIG_UNIX98_PTYS" },
		{ "overlay", "CONFIG_OVERLAY_FS" },
	};

	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++)
		if (!strcmp(options[i][0], type))
			return options[i][1];
	return "an option";
}

static void mount_on(const char *source, const char *target, const char *type, unsigned long flags,
		     const char *options)
{
	make_directory(target);
	if (!mount(source, target, type, flags, options))
		return;
	if (errno == ENODEV && type) {
		errno = 0;
		die("the kernel was built without %s", option_of(type));
	}
	die("mount %s on %s", type ? type : source, target);
}

/* Mount a file system that the kernel may lack. */
static void mount_if_known(const char *type, const char *target, unsigned long flags)
{
	if (mount(type, target, type, flags, NULL) && errno != ENODEV && errno != ENOENT)
		die("mount %s on %s", type, target);
}

static void read_line(const char *path, char *line, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, line, size - 1);

	if (fd >= 0)
		close(fd);
	line[got > 0 ? got : 0] = '\0';
	line[strcspn(line, "\n")] = '\0';
}

/* The value of spinlock.init on the kernel's command line. */
static const char *chosen_mode(void)
{
	static char line[4096];
	const char *value = "agent";

	read_line("/proc/cmdline", line, sizeof(line));
	for (char *word = strtok(line, " "); word; word = strtok(NULL, " "))
		if (!strncmp(word, "spinlock.init=", 14))
			value = word + 14;
	return value;
}

/* Load the modules of a list, in its order, and delete their files to free memory. */
static void load_modules(const char *list)
{
	char path[256];
	FILE *file = fopen(list, "re");

	if (!file)
		die("open %s", list);
	while (fgets(path, sizeof(path), file)) {
		path[strcspn(path, "\n")] = '\0';
		int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			die("open %s", path);
		if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)
			die("load %s", path);
		close(fd);
		unlink(path);
	}
	fclose(file);
}

static int watch_devices(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
			NETLINK_KOBJECT_UEVENT);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)))
		die("watch devices");
	return fd;
}

static long long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static int has_entries(const char *path)
{
	DIR *directory = opendir(path);
	int found = 0;

	for (struct dirent *entry; directory && (entry = readdir(directory));)
		found |= entry->d_name[0] != '.';
	if (directory)
		closedir(directory);
	return found;
}

/*
 * Call probe for each entry of a sysfs class until it returns true, and wait for devices to appear.
 * `option` is the driver's kernel option, needed on top of virtio's own.
 */
static void find_device(int events, const char *class, int (*probe)(const char *), const char *what,
			const char *option)
{
	int built_in = !access(NO_MODULES, F_OK);
	long long deadline = now_ms() + (built_in ? BUILT_IN_WAIT_MS : DEVICE_WAIT_MS);
	char event[4096];

	for (;;) {
		DIR *directory = opendir(class);

		for (struct dirent *entry; directory && (entry = readdir(directory));)
			if (entry->d_name[0] != '.' && probe(entry->d_name)) {
				closedir(directory);
				return;
			}
		if (directory)
			closedir(directory);

		struct pollfd wait = { .fd = events, .events = POLLIN };
		long long left = deadline - now_ms();

		if (left <= 0 || poll(&wait, 1, left) <= 0) {
			errno = 0;
			if (built_in)
				die("no %s found: the kernel needs %s=y", what,
				    has_entries("/sys/bus/virtio/devices") ? option : "CONFIG_VIRTIO_PCI");
			die("no %s found", what);
		}
		while (recv(events, event, sizeof(event), 0) > 0)
			;
	}
}

static int has_magic(const char *device, off_t offset, const void *magic, size_t size)
{
	char found[8];
	int fd = open(device, O_RDONLY | O_CLOEXEC);
	int same = fd >= 0 && pread(fd, found, size, offset) == (ssize_t)size &&
		   !memcmp(found, magic, size);

	if (fd >= 0)
		close(fd);
	return same;
}

static unsigned long base_flags;

static int mount_base(const char *name)
{
	char device[300];

	snprintf(device, sizeof(device), "/dev/%s", name);
	if (!has_magic(device, 1080, "\x53\xef", 2))
		return 0;
	/* Guests share a read-only base, so its journal must not be replayed. */
	mount_on(device, base_flags & MS_RDONLY ? "/base" : ROOT, "ext4", base_flags,
		 base_flags & MS_RDONLY ? "noload" : NULL);
	return 1;
}

static int mount_kernel(const char *name)
{
	char device[300], modules[300];
	struct utsname kernel;

	snprintf(device, sizeof(device), "/dev/%s", name);
	if (!has_magic(device, 0, "hsqs", 4))
		return 0;
	mount_on(device, KERNEL, "squashfs", MS_RDONLY, NULL);
	uname(&kernel);
	snprintf(modules, sizeof(modules), KERNEL "/usr/lib/modules/%s", kernel.release);
	if (!access(modules, F_OK))
		return 1;
	umount(KERNEL);
	return 0;
}

static char port[300];

static int is_port(const char *name)
{
	char path[400], label[64];

	snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", name);
	read_line(path, label, sizeof(label));
	snprintf(port, sizeof(port), "/dev/%s", name);
	return !strcmp(label, "spinlock");
}

static void mount_kernel_files(void)
{
	mount_on(KERNEL "/usr/lib/modules", ROOT "/usr/lib/modules", NULL, MS_BIND, NULL);
	mount_on(KERNEL "/usr/src", ROOT "/usr/src", NULL, MS_BIND, NULL);
}

static void enter_root(void)
{
	static const char *const kept[] = { "/dev", "/proc", "/sys" };
	char target[64];

	for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++) {
		snprintf(target, sizeof(target), ROOT "%s", kept[i]);
		mount_on(kept[i], target, NULL, MS_MOVE, NULL);
	}
	if (chdir(ROOT) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		die("change root");
}

static void copy_agent(void)
{
	int from = open("/agent.pyz", O_RDONLY | O_CLOEXEC);
	int to;
	struct stat facts;

	if (from < 0 || fstat(from, &facts))
		die("open /agent.pyz");
	mount_on("tmpfs", ROOT "/run", "tmpfs", 0, "mode=0755");
	make_directory(ROOT "/run/spinlock");
	to = open(ROOT AGENT, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	if (to < 0 || sendfile(to, from, NULL, facts.st_size) != facts.st_size)
		die("copy the agent");
	close(to);
	close(from);
	unlink("/agent.pyz");
}

static void loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request))
		die("lo up");
	close(fd);
}

static pid_t start_agent(void)
{
	char *const arguments[] = { "/usr/bin/python3", AGENT, "serve", port, NULL };
	char *const environment[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
				      "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1", NULL };
	pid_t child = fork();

	if (child < 0)
		die("fork");
	if (child == 0) {
		setsid();
		execve(arguments[0], arguments, environment);
		die("start %s", arguments[0]);
	}
	return child;
}

static void keep_agent(void)
{
	int quick_deaths = 0;

	for (;;) {
		long long started = now_ms();
		pid_t agent = start_agent(), child;
		int status;

		do {
			child = wait(&status);
		} while (child != agent);
		printf("spinlock-init: agent ended with wait status 0x%x\n", status);
		fflush(stdout);
		quick_deaths = now_ms() - started < QUICK_DEATH_S * 1000 ? quick_deaths + 1 : 0;
		if (quick_deaths == QUICK_DEATHS) {
			errno = 0;
			die("the agent does not stay alive");
		}
	}
}

/* Make the root writable by overlayfs. Without overlayfs it stays read-only, with tmpfs mounts. */
static void mount_root(void)
{
	mount_on("tmpfs", "/over", "tmpfs", 0, "mode=0755");
	make_directory("/over/upper");
	make_directory("/over/work");
	make_directory(ROOT);
	if (!mount("overlay", ROOT, "overlay", 0,
		   "lowerdir=/base,upperdir=/over/upper,workdir=/over/work"))
		return;
	if (errno != ENODEV)
		die("mount overlay on " ROOT);
	mount_on("/base", ROOT, NULL, MS_BIND, NULL);
}

static void run_agent(int events)
{
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };

	base_flags = MS_RDONLY;
	find_device(events, "/sys/class/block", mount_base, "base image (ext4)", "CONFIG_VIRTIO_BLK");
	mount_root();
	if (access(NO_MODULES, F_OK)) {
		find_device(events, "/sys/class/block", mount_kernel,
			    "kernel image for this release", "CONFIG_VIRTIO_BLK");
		mount_kernel_files();
	}
	copy_agent();
	find_device(events, "/sys/class/virtio-ports", is_port, "virtio-serial port `spinlock`",
		    "CONFIG_VIRTIO_CONSOLE");
	enter_root();
	mount_on("tmpfs", "/tmp", "tmpfs", 0, "mode=1777");
	mount_on("devpts", "/dev/pts", "devpts", 0, "mode=0620,ptmxmode=0666");
	mount_on("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777");
	mount_on("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, NULL);
	mount_if_known("bpf", "/sys/fs/bpf", 0);
	mount_if_known("debugfs", "/sys/kernel/debug", 0);
	mount_if_known("tracefs", "/sys/kernel/tracing", 0);
	sethostname("spinlock", 8);
	loopback_up();
	/* Kernels before v5.11 charge BPF memory to this limit, for root too. */
	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	/* Print warnings on the console too: its file survives a guest that dies. */
	klogctl(8, NULL, 5);
	close(events);
	keep_agent();
}

static void run_system(int events, const char *program)
{
	char *const arguments[] = { (char *)program, NULL };

	find_device(events, "/sys/class/block", mount_base, "root disk (ext4)", "");
	find_device(events, "/sys/class/block", mount_kernel, "kernel image for this release", "");
	mount_kernel_files();
	enter_root();
	close(events);
	execv(program, arguments);
	die("exec %s", program);
}

int main(void)
{
	const char *mode;
	int events;

	mount_on("proc", "/proc", "proc", 0, NULL);
	mount_on("sysfs", "/sys", "sysfs", 0, NULL);
	/* The initramfs has no /dev/console, so the kernel starts init without open files. */
	mount_on("devtmpfs", "/dev", "devtmpfs", 0, "mode=0755");
	int console = open("/dev/console", O_RDWR);

	for (int fd = 0; fd < 3; fd++)
		if (console != fd)
			dup2(console, fd);
	if (console > 2)
		close(console);
	mode = chosen_mode();
	if (!strcmp(mode, "probe")) {
		printf("spinlock-init: alive\n");
		fflush(stdout);
		stop();
	}
	events = watch_devices();
	load_modules("/modules/agent.list");
	if (mode[0] != '/')
		run_agent(events);
	load_modules("/modules/system.list");
	run_system(events, mode);
}
