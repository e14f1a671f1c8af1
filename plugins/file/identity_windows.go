package file

import (
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/windows"
)

// identify returns which file the path leads to, and what it is.
func identify(path string) (fileID, fs.FileInfo, error) {
	f, id, fi, err := openFile(path)
	if err != nil {
		return fileID{}, nil, err
	}
	return id, fi, f.Close()
}

// openFile opens the path for reading, so that others may still write, rename and delete the file.
func openFile(path string) (*os.File, fileID, fs.FileInfo, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, fileID{}, nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	h, err := windows.CreateFile(name, windows.GENERIC_READ,
		windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil, windows.OPEN_EXISTING,
		windows.FILE_ATTRIBUTE_NORMAL|windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	if err != nil {
		return nil, fileID{}, nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(h), path)
	var info windows.ByHandleFileInformation
	err = windows.GetFileInformationByHandle(h, &info)
	if err == nil {
		var fi fs.FileInfo
		if fi, err = f.Stat(); err == nil {
			return f, fileID{uint64(info.VolumeSerialNumber), uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow)}, fi, nil
		}
	}
	f.Close()
	return nil, fileID{}, nil, &fs.PathError{Op: "stat", Path: path, Err: err}
}

// born returns when the file was created, zero if that is not known.
func born(path string) time.Time {
	fi, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	d, ok := fi.Sys().(*syscall.Win32FileAttributeData)
	if !ok {
		return time.Time{}
	}
	return time.Unix(0, d.CreationTime.Nanoseconds())
}
