// drm/drm_mode.h: mode setting. Connectors (sockets), CRTCs (what scans out), planes (what is scanned
// out), framebuffers, dumb buffers, properties, and atomic commits, which set any number of properties
// at once or none. Arrays are filled by asking twice: first for their lengths, then with room for them.
import { ioReadWrite } from './ioctl.ts';
import { array, bytes, struct, u16, u32, u64 } from './layout.ts';

const TYPE = 'd';
export const DRM_DISPLAY_MODE_LEN = 32;
export const DRM_PROP_NAME_LEN = 32;

export const DRM_MODE_TYPE_PREFERRED = 1 << 3;
export const DRM_MODE_FLAG_INTERLACE = 1 << 4;
export const DRM_MODE_FLAG_DBLSCAN = 1 << 5;

export const drmModeModeinfo = struct('drm_mode_modeinfo', 'A display mode.', {
  clock: [0, u32, 'pixel clock, kHz'],
  hdisplay: [4, u16, 'visible pixels of a row'],
  hsync_start: [6, u16, 'pixels'],
  hsync_end: [8, u16, 'pixels'],
  htotal: [10, u16, 'pixels'],
  hskew: [12, u16, 'pixels'],
  vdisplay: [14, u16, 'visible rows'],
  vsync_start: [16, u16, 'rows'],
  vsync_end: [18, u16, 'rows'],
  vtotal: [20, u16, 'rows'],
  vscan: [22, u16, 'rows'],
  vrefresh: [24, u32, 'about, Hz'],
  flags: [28, u32, 'DRM_MODE_FLAG_*'],
  type: [32, u32, 'DRM_MODE_TYPE_*'],
  name: [36, bytes(DRM_DISPLAY_MODE_LEN), 'zero-terminated'],
});

export const drmModeCardRes = struct('drm_mode_card_res', 'Asks what a card has.', {
  fb_id_ptr: [0, u64, 'u32[count_fbs]'],
  crtc_id_ptr: [8, u64, 'u32[count_crtcs]'],
  connector_id_ptr: [16, u64, 'u32[count_connectors]'],
  encoder_id_ptr: [24, u64, 'u32[count_encoders]'],
  count_fbs: [32, u32, 'in: room; out: how many there are'],
  count_crtcs: [36, u32, 'as count_fbs'],
  count_connectors: [40, u32, 'as count_fbs'],
  count_encoders: [44, u32, 'as count_fbs'],
  min_width: [48, u32, 'of a framebuffer, out'],
  max_width: [52, u32, 'of a framebuffer, out'],
  min_height: [56, u32, 'of a framebuffer, out'],
  max_height: [60, u32, 'of a framebuffer, out'],
});
export const DRM_IOCTL_MODE_GETRESOURCES = ioReadWrite(TYPE, 0xa0, drmModeCardRes.size);

export const drmModeGetEncoder = struct('drm_mode_get_encoder', 'Asks about an encoder.', {
  encoder_id: [0, u32, 'which'],
  encoder_type: [4, u32, 'out'],
  crtc_id: [8, u32, 'out: the CRTC it is on, or 0'],
  possible_crtcs: [12, u32, 'out: bit i for the i-th CRTC of the card'],
  possible_clones: [16, u32, 'out'],
});
export const DRM_IOCTL_MODE_GETENCODER = ioReadWrite(TYPE, 0xa6, drmModeGetEncoder.size);

export const drmModeGetConnector = struct('drm_mode_get_connector', 'Asks about a connector.', {
  encoders_ptr: [0, u64, 'u32[count_encoders]'],
  modes_ptr: [8, u64, 'struct drm_mode_modeinfo[count_modes]'],
  props_ptr: [16, u64, 'u32[count_props]'],
  prop_values_ptr: [24, u64, 'u64[count_props]'],
  count_modes: [32, u32, 'in: room, 0 makes the driver probe anew; out: how many'],
  count_props: [36, u32, 'in: room; out: how many'],
  count_encoders: [40, u32, 'in: room; out: how many'],
  encoder_id: [44, u32, 'out: the encoder in use'],
  connector_id: [48, u32, 'which'],
  connector_type: [52, u32, 'out: DRM_MODE_CONNECTOR_*'],
  connector_type_id: [56, u32, 'out: number among those of its type, from 1'],
  connection: [60, u32, 'out: 1 connected, 2 disconnected, 3 unknown'],
  mm_width: [64, u32, 'out'],
  mm_height: [68, u32, 'out'],
  subpixel: [72, u32, 'out'],
  pad: [76, u32, 'zero'],
});
export const DRM_IOCTL_MODE_GETCONNECTOR = ioReadWrite(TYPE, 0xa7, drmModeGetConnector.size);
export const DRM_MODE_CONNECTOR = {
  DRM_MODE_CONNECTOR_Unknown: 0,
  DRM_MODE_CONNECTOR_VGA: 1,
  DRM_MODE_CONNECTOR_DVII: 2,
  DRM_MODE_CONNECTOR_DVID: 3,
  DRM_MODE_CONNECTOR_DVIA: 4,
  DRM_MODE_CONNECTOR_Composite: 5,
  DRM_MODE_CONNECTOR_SVIDEO: 6,
  DRM_MODE_CONNECTOR_LVDS: 7,
  DRM_MODE_CONNECTOR_Component: 8,
  DRM_MODE_CONNECTOR_9PinDIN: 9,
  DRM_MODE_CONNECTOR_DisplayPort: 10,
  DRM_MODE_CONNECTOR_HDMIA: 11,
  DRM_MODE_CONNECTOR_HDMIB: 12,
  DRM_MODE_CONNECTOR_TV: 13,
  DRM_MODE_CONNECTOR_eDP: 14,
  DRM_MODE_CONNECTOR_VIRTUAL: 15,
  DRM_MODE_CONNECTOR_DSI: 16,
  DRM_MODE_CONNECTOR_DPI: 17,
  DRM_MODE_CONNECTOR_WRITEBACK: 18,
  DRM_MODE_CONNECTOR_SPI: 19,
  DRM_MODE_CONNECTOR_USB: 20,
} as const;

export const drmModeGetProperty = struct('drm_mode_get_property', 'Asks about a property.', {
  values_ptr: [0, u64, 'u64[count_values]'],
  enum_blob_ptr: [8, u64, 'struct drm_mode_property_enum[count_enum_blobs]'],
  prop_id: [16, u32, 'which'],
  flags: [20, u32, 'out: DRM_MODE_PROP_*'],
  name: [24, bytes(DRM_PROP_NAME_LEN), 'out: zero-terminated'],
  count_values: [56, u32, 'in: room; out: how many'],
  count_enum_blobs: [60, u32, 'in: room; out: how many'],
});
export const DRM_IOCTL_MODE_GETPROPERTY = ioReadWrite(TYPE, 0xaa, drmModeGetProperty.size);

export const drmModeGetBlob = struct('drm_mode_get_blob', 'Asks for the bytes of a blob.', {
  blob_id: [0, u32, 'which'],
  length: [4, u32, 'in: room; out: bytes'],
  data: [8, u64, 'where they go'],
});
export const DRM_IOCTL_MODE_GETPROPBLOB = ioReadWrite(TYPE, 0xac, drmModeGetBlob.size);

/** Its argument is the number of the framebuffer, an unsigned int. */
export const DRM_IOCTL_MODE_RMFB = ioReadWrite(TYPE, 0xaf, u32.size);

export const drmModeCreateDumb = struct('drm_mode_create_dumb', 'Allocates memory for pixels.', {
  height: [0, u32, 'rows'],
  width: [4, u32, 'pixels'],
  bpp: [8, u32, 'bits of a pixel'],
  flags: [12, u32, 'zero'],
  handle: [16, u32, 'out'],
  pitch: [20, u32, 'out: bytes from row to row that the hardware likes'],
  size: [24, u64, 'out: bytes'],
});
export const DRM_IOCTL_MODE_CREATE_DUMB = ioReadWrite(TYPE, 0xb2, drmModeCreateDumb.size);

export const drmModeMapDumb = struct('drm_mode_map_dumb', 'Prepares a dumb buffer for mmap.', {
  handle: [0, u32, 'which'],
  pad: [4, u32, 'zero'],
  offset: [8, u64, 'out: the offset for mmap of the card'],
});
export const DRM_IOCTL_MODE_MAP_DUMB = ioReadWrite(TYPE, 0xb3, drmModeMapDumb.size);

export const drmModeDestroyDumb = struct('drm_mode_destroy_dumb', 'Gives a dumb buffer up.', {
  handle: [0, u32, 'which'],
});
export const DRM_IOCTL_MODE_DESTROY_DUMB = ioReadWrite(TYPE, 0xb4, drmModeDestroyDumb.size);

export const drmModeGetPlaneRes = struct('drm_mode_get_plane_res', 'Asks for all planes.', {
  plane_id_ptr: [0, u64, 'u32[count_planes]'],
  count_planes: [8, u32, 'in: room; out: how many'],
});
export const DRM_IOCTL_MODE_GETPLANERESOURCES = ioReadWrite(TYPE, 0xb5, drmModeGetPlaneRes.size);

export const drmModeGetPlane = struct('drm_mode_get_plane', 'Asks about a plane.', {
  plane_id: [0, u32, 'which'],
  crtc_id: [4, u32, 'out: the CRTC it is on, or 0'],
  fb_id: [8, u32, 'out: the framebuffer on it, or 0'],
  possible_crtcs: [12, u32, 'out: bit i for the i-th CRTC of the card'],
  gamma_size: [16, u32, 'out'],
  count_format_types: [20, u32, 'in: room; out: how many'],
  format_type_ptr: [24, u64, 'u32[count_format_types]: FourCCs'],
});
export const DRM_IOCTL_MODE_GETPLANE = ioReadWrite(TYPE, 0xb6, drmModeGetPlane.size);

export const drmModeFbCmd2 = struct('drm_mode_fb_cmd2', 'Makes a framebuffer of buffers.', {
  fb_id: [0, u32, 'out'],
  width: [4, u32, 'pixels'],
  height: [8, u32, 'rows'],
  pixel_format: [12, u32, 'FourCC'],
  flags: [16, u32, 'DRM_MODE_FB_*'],
  handles: [20, array(u32, 4), 'a buffer for each plane of the format, then zeros'],
  pitches: [36, array(u32, 4), 'bytes from row to row'],
  offsets: [52, array(u32, 4), 'bytes before the first row'],
  modifier: [72, array(u64, 4), 'with DRM_MODE_FB_MODIFIERS'],
});
export const DRM_IOCTL_MODE_ADDFB2 = ioReadWrite(TYPE, 0xb8, drmModeFbCmd2.size);

export const drmModeObjGetProperties = struct(
  'drm_mode_obj_get_properties',
  'Asks for the properties of an object.',
  {
    props_ptr: [0, u64, 'u32[count_props]: property ids'],
    prop_values_ptr: [8, u64, 'u64[count_props]'],
    count_props: [16, u32, 'in: room; out: how many'],
    obj_id: [20, u32, 'which'],
    obj_type: [24, u32, 'DRM_MODE_OBJECT_*'],
  },
);
export const DRM_IOCTL_MODE_OBJ_GETPROPERTIES = ioReadWrite(
  TYPE,
  0xb9,
  drmModeObjGetProperties.size,
);
export const DRM_MODE_OBJECT_CRTC = 0xcccccccc;
export const DRM_MODE_OBJECT_CONNECTOR = 0xc0c0c0c0;
export const DRM_MODE_OBJECT_PLANE = 0xeeeeeeee;

export const drmModeAtomic = struct('drm_mode_atomic', 'Sets properties of objects at once.', {
  flags: [0, u32, 'DRM_MODE_ATOMIC_*, DRM_MODE_PAGE_FLIP_EVENT'],
  count_objs: [4, u32, 'objects'],
  objs_ptr: [8, u64, 'u32[count_objs]'],
  count_props_ptr: [16, u64, 'u32[count_objs]: how many properties each one has here'],
  props_ptr: [24, u64, 'u32[]: the properties of all objects'],
  prop_values_ptr: [32, u64, 'u64[]: their values'],
  reserved: [40, u64, 'zero'],
  user_data: [48, u64, 'comes back in the event'],
});
export const DRM_IOCTL_MODE_ATOMIC = ioReadWrite(TYPE, 0xbc, drmModeAtomic.size);
export const DRM_MODE_PAGE_FLIP_EVENT = 0x01;
export const DRM_MODE_ATOMIC_TEST_ONLY = 0x0100;
export const DRM_MODE_ATOMIC_NONBLOCK = 0x0200;
export const DRM_MODE_ATOMIC_ALLOW_MODESET = 0x0400;

export const drmModeCreateBlob = struct('drm_mode_create_blob', 'Makes a blob of bytes.', {
  data: [0, u64, 'where they are'],
  length: [8, u32, 'bytes'],
  blob_id: [12, u32, 'out'],
});
export const DRM_IOCTL_MODE_CREATEPROPBLOB = ioReadWrite(TYPE, 0xbd, drmModeCreateBlob.size);

export const drmModeDestroyBlob = struct('drm_mode_destroy_blob', 'Gives a blob up.', {
  blob_id: [0, u32, 'which'],
});
export const DRM_IOCTL_MODE_DESTROYPROPBLOB = ioReadWrite(TYPE, 0xbe, drmModeDestroyBlob.size);
