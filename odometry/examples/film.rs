//! Scratch: a whole sequence folder.
use geometry::*; use odometry::*;
fn cpu()->f64{ std::fs::read_to_string("/proc/self/schedstat").unwrap().split(' ').next().unwrap().parse::<f64>().unwrap()/1e6 }
fn med(v:&mut Vec<f64>)->f64{ if v.is_empty(){return f64::NAN} v.sort_by(f64::total_cmp); let n=v.len(); if n%2==1 {v[n/2]} else {0.5*(v[n/2-1]+v[n/2])} }
fn main(){
 let a:Vec<String>=std::env::args().collect(); let dir=&a[1]; let stride:usize=a[2].parse().unwrap(); let verbose=a.len()>3;
 let s:serde_json::Value=serde_json::from_slice(&std::fs::read(format!("{dir}/sequence.json")).unwrap()).unwrap();
 let k=&s["intrinsics"]; let g=|n:&str|k[n].as_f64().unwrap();
 let poses:Vec<Transform<World,Camera>>=s["poses"].as_array().unwrap().iter().map(|p|{ let mut v=vec![]; fn flat(x:&serde_json::Value,v:&mut Vec<f64>){ match x { serde_json::Value::Array(l)=>l.iter().for_each(|y|flat(y,v)), y=>v.push(y.as_f64().unwrap()) } } flat(p,&mut v); let m:[f64;16]=v.try_into().unwrap(); Transform::from_matrix_row_major(&m).unwrap()}).collect();
 let metric=s["metric"].as_bool().unwrap_or(false);
 let load=|i:usize|{ let mut p=format!("{dir}/frames/{i:06}.jpg"); if !std::path::Path::new(&p).exists(){p=format!("{dir}/frames/{i:06}.png");} image::open(&p).unwrap().into_rgb8()};
 let depth=(0..1).filter_map(|_|{ let p=format!("{dir}/depth/000000.png"); let d=image::open(&p).ok()?.into_luma16(); let mut v:Vec<f64>=d.pixels().filter(|p|p.0[0]>0).map(|p|p.0[0] as f64/1000.).collect(); Some(med(&mut v))}).next();
 let mut st=stream::Stream::new(stream::Options::default()); let (mut est,mut gt,mut ms)=(vec![],vec![],vec![]); let (mut rr,mut tt)=(vec![],vec![]); let mut seg=0; let mut motion=0; let mut nwin=0; let mut stamps:Vec<Stamp>=vec![]; let mut kfs=0; let mut wms=vec![]; let mut nees=vec![];
 for i in (0..poses.len()).step_by(stride){ let im=load(i); let kk=Intrinsics::new(g("fx"),g("fy"),g("cx"),g("cy"),im.width(),im.height()).unwrap(); let grey=Grey::from_rgb(im.width() as usize,im.height() as usize,im.as_raw()).unwrap();
  let c0=cpu(); let p=st.push(Picture::new(Stamp::from_nanos(i as i64),&kk,&grey).unwrap()).unwrap(); ms.push(cpu()-c0);
  for r in st.take_revised() { if let Some(k)=stamps.iter().position(|s:&Stamp|*s==r.stamp) { est[k]=r.value; } }
  if verbose {println!("{i} {:?} seg {} kf {} pts {} {:.1} ms t {:.3?} true {:.3?}",p.basis,p.segment,p.is_keyframe as u8,p.points,ms[ms.len()-1],p.odom_from_camera.translation().as_slice(),(poses[0].inverse()*poses[i]).translation().as_slice());}
  seg=p.segment; if p.basis==stream::Basis::Motion {motion+=1;} kfs+=p.is_keyframe as usize; est.push(p.odom_from_camera); gt.push(poses[i]); stamps.push(p.stamp); let _=&mut nees; let _:&mut Vec<f64>=&mut nees;
  if stamps.len()>=5 { nwin+=1; let n=stamps.len(); let w:[Stamp;5]=std::array::from_fn(|j|stamps[n-5+j]); let c0=cpu(); if let Some(t)=st.window(&w) { wms.push(cpu()-c0); let truth=WindowTrajectory::from_world(&std::array::from_fn(|j|gt[n-5+j])); let e=WindowErrors::new(&truth,&t,SceneScale{metric,median_depth:depth}); rr.push(e.rre_deg); if let Some(x)=e.tde_deg{tt.push(x);} } }
 }
 let path:f64=gt.windows(2).map(|w|(w[1].translation()-w[0].translation()).norm()).sum();
 let steps=|v:&[Vector]|->f64{v.windows(2).map(|w|(w[1]-w[0]).norm()).sum()}; type Vector=nalgebra::Vector3<f64>;
 let (c,h):(Vec<Vector>,Vec<Vector>)=(est.iter().map(|p|p.translation()).collect(),gt.iter().map(|p|p.translation()).collect()); let m=c.len()/2;
 let ratio=(steps(&c[m..])/steps(&h[m..]))/(steps(&c[..=m])/steps(&h[..=m]));
 let ate=metrics::ape_rmse(&gt,&est,metrics::Alignment::Sim3).unwrap_or(f64::NAN); let rpe=metrics::rpe(&gt,&est,metrics::Alignment::Sim3,metrics::Pairs::All{delta:1}).map(|e|e.rotation_deg.median).unwrap_or(f64::NAN);
 let mean=ms.iter().sum::<f64>()/ms.len() as f64; let mut m2=ms.clone(); let md=med(&mut m2); let p95=m2[(m2.len() as f64*0.95) as usize];
 println!("frames {} motion {motion} segs {seg} kf {kfs} path {path:.2} ATE {:.2}% RPE {rpe:.3} scale {ratio:.3} | win {:.2} rre {:.3} tde {:.2} ({:.1} ms) | ms med {md:.1} mean {mean:.1} p95 {p95:.1}",c.len(),100.*ate/path,rr.len() as f64/nwin as f64,med(&mut rr),med(&mut tt),med(&mut wms));
}
