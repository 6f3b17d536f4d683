/* Files from the EFI system partition that the loader was started from. */
#include "loader.h"
#include "text.h"

/* Some firmware cannot read large files in one piece. */
#define READ_STEP (8 * MIB)

/* A FAT name's length; EFI_FILE_INFO ends with the name. */
#define NAME_CHARS 256

#define PATH_CHARS (BOOT_PATH_LEN + sizeof(CONFIG_DIR))

static EFI_FILE_HANDLE volume;

bool file_volume(void)
{
	EFI_GUID loaded_image = LOADED_IMAGE_PROTOCOL, file_system = SIMPLE_FILE_SYSTEM_PROTOCOL;
	EFI_FILE_IO_INTERFACE *fs;
	EFI_LOADED_IMAGE *self;
	EFI_STATUS status;

	status = bs->HandleProtocol(loader_handle, &loaded_image, (void **)&self);
	if (!EFI_ERROR(status))
		status = bs->HandleProtocol(self->DeviceHandle, &file_system, (void **)&fs);
	if (!EFI_ERROR(status))
		status = fs->OpenVolume(fs, &volume);
	if (!EFI_ERROR(status))
		return true;
	problem("the volume that the loader was started from cannot be opened (%s); start it as "
		"\\EFI\\BOOT\\BOOTX64.EFI of an EFI system partition",
		status_text(status));
	return false;
}

void file_volume_close(void)
{
	if (volume)
		volume->Close(volume);
	volume = NULL;
}

static bool wide_path(const char *path, CHAR16 *out)
{
	size_t i, len = text_length(path), n = 0;
	unsigned int step;
	const char *dir;
	u32 c;

	if (path[0] != '\\' && path[0] != '/')
		for (dir = CONFIG_DIR; *dir; dir++)
			out[n++] = (CHAR16)*dir;
	for (i = 0; i < len && n < PATH_CHARS - 1; i += step) {
		step = text_utf8(path + i, len - i, &c);
		if (!step || c > 0xffff)
			return false;
		out[n++] = c == '/' ? '\\' : (CHAR16)c;
	}
	out[n] = 0;
	return true;
}

static EFI_STATUS file_size(EFI_FILE_HANDLE file, u64 *size, bool *directory)
{
	EFI_GUID guid = EFI_FILE_INFO_ID;
	union {
		EFI_FILE_INFO info;
		u8 room[sizeof(EFI_FILE_INFO) + NAME_CHARS * sizeof(CHAR16)];
	} u;
	UINTN bytes = sizeof(u);
	EFI_STATUS status = file->GetInfo(file, &guid, &bytes, &u);

	if (EFI_ERROR(status))
		return status;
	*size = u.info.FileSize;
	*directory = u.info.Attribute & EFI_FILE_DIRECTORY;
	return EFI_SUCCESS;
}

static bool read_all(EFI_FILE_HANDLE file, const char *path, u8 *to, u64 size)
{
	u64 done = 0;

	while (done < size) {
		UINTN step = MIN(size - done, READ_STEP);
		EFI_STATUS status = file->Read(file, &step, to + done);

		if (EFI_ERROR(status)) {
			problem("%s: reading fails after %llu of %llu bytes: %s; copy it again",
				path, (unsigned long long)done, (unsigned long long)size,
				status_text(status));
			return false;
		}
		if (!step) {
			problem("%s: truncated: it should have %llu bytes, but ends after %llu; "
				"copy it "
				"again",
				path, (unsigned long long)size, (unsigned long long)done);
			return false;
		}
		done += step;
	}
	return true;
}

static bool read_open(EFI_FILE_HANDLE file, const char *path, u64 limit, const char *limit_text,
		      enum lifetime lifetime, struct boot_file *out)
{
	bool directory = false;
	u64 size = 0;
	EFI_STATUS status = file_size(file, &size, &directory);
	void *to;

	if (EFI_ERROR(status)) {
		problem("%s: its size cannot be read: %s", path, status_text(status));
		return false;
	}
	if (directory) {
		problem("%s: is a directory; expected a file", path);
		return false;
	}
	if (!size) {
		problem("%s: the file is empty", path);
		return false;
	}
	if (size > limit) {
		problem("%s: the file is too large: %llu KiB; %s is %llu KiB", path,
			(size + KIB - 1) / KIB, limit_text, limit / KIB);
		return false;
	}
	to = memory_alloc(size, ANYWHERE, lifetime);
	if (!to) {
		memory_short(path, size);
		return false;
	}
	say("loading %s (%llu KiB)", path, (size + KIB - 1) / KIB);
	out->base = (uintptr_t)to;
	out->bytes = size;
	/* A disk's last sector may end beyond the file. */
	bs->SetMem((u8 *)to + size, ALIGN_UP(size, PAGE_SIZE) - size, 0);
	return read_all(file, path, to, size);
}

bool file_read(const char *path, u64 limit, const char *limit_text, enum lifetime lifetime,
	       struct boot_file *out)
{
	CHAR16 wide[PATH_CHARS];
	EFI_FILE_HANDLE file;
	EFI_STATUS status;
	bool ok;

	if (path != out->path)
		text_print(out->path, sizeof(out->path), "%s", path);
	if (!wide_path(path, wide)) {
		problem("%s: the path has characters that the file system has not", path);
		return false;
	}
	status = volume->Open(volume, &file, wide, EFI_FILE_MODE_READ, 0);
	if (EFI_ERROR(status)) {
		problem("%s: cannot be opened: %s", path, status_text(status));
		return false;
	}
	ok = read_open(file, path, limit, limit_text, lifetime, out);
	file->Close(file);
	return ok;
}
